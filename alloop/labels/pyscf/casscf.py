"""CASSCF from the orbitals of a converged mean field, for bonds that break.

The start are the orbitals of the restricted mean field, or the natural ones of an
unrestricted one (Pulay & Hamilton, J. Chem. Phys. 88, 4926 (1988)); the space is that
on both sides of the gap, orbitals by number, or those that atomic shells overlap with
most (AVAS: Sayfutyarova et al., J. Chem. Theory Comput. 13, 4063 (2017)). The number of
orbitals is the level's in every frame, so that energies of frames belong together.

Spin is held by a penalty: at a broken bond, states of several spins are equal in
energy, and their mixtures would be too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pyscf import gto, mcscf
from pyscf.mcscf import avas

from alloop.core.frame import Frame
from alloop.core.records import Detail, Failure
from alloop.core.units import HARTREE, Floats
from alloop.labels.pyscf.active_space import (
    ACTIVE_SPACE,
    active_electrons,
    shell_element,
    space_name,
    space_refusal,
)
from alloop.labels.pyscf.scf import Settings
from alloop.labels.pyscf.stability import is_unrestricted
from alloop.labels.result import Refused

_OVERLAP = 0.01  # of an orbital with the atomic shells; those of symmetry have 1e-10
_CI_CYCLES = 200
_CI_TOLERANCE = 0.1  # of that of the energy


def refuse_space(frame: Frame, settings: Settings) -> None:
    """Raise Refused if the level's active space does not fit the frame's electrons."""
    space = settings.get(ACTIVE_SPACE)
    if space and (problem := space_refusal(space, frame)):
        raise Refused(Failure.UNSUPPORTED, problem)


def solve_casscf(mf: Any, settings: Settings, details: dict[str, Detail]) -> Any:
    """Return the converged CASSCF on a mean field, and fill in `details`.

    Details are the natural occupations of the active orbitals, <S²> and the energy
    (eV). Raises Refused if neither of two solvers converges.
    """
    space = settings[ACTIVE_SPACE]
    solver = _fresh_solver(mf, settings)
    start = _active_start(mf, solver, space)
    solver.kernel(start)
    if not _is_converged(solver):
        solver = _second_order(mf, settings, start)
        details["cas_solver"] = "second order"
    if not _is_converged(solver):
        text = f"the CASSCF{space_name(space)} did not converge"
        raise Refused(Failure.CAS_NOT_CONVERGED, text, details)
    ci, electrons = solver.ci, solver.nelecas
    density = solver.fcisolver.make_rdm1(ci, solver.ncas, electrons)
    occupations = np.linalg.eigvalsh(density)[::-1]
    details["energy_casscf"] = float(solver.e_tot) * HARTREE
    details["s2"] = float(solver.fcisolver.spin_square(ci, solver.ncas, electrons)[0])
    details["occupations"] = ", ".join(f"{x:.4f}" for x in occupations)
    details["occupation_max"] = float(occupations[0])
    details["occupation_min"] = float(occupations[-1])
    return solver


def shell_problems(space: Mapping[str, Any], elements: list[str]) -> list[str]:
    """Return what is wrong with the atomic shells of a space, one sentence each."""
    texts = []
    for shell in space.get("atomic_orbitals", ()):
        element = shell_element(shell)
        if element not in elements:
            texts.append(
                f"the active space names {shell!r}, no start has {element}; the "
                f"elements are {', '.join(elements)}"
            )
        elif not _has_shell(element, shell.split()[-1]):
            texts.append(f"the active space names {shell!r}, which no valence shell is")
    return texts


def _has_shell(element: str, shell: str) -> bool:
    spin = gto.charge(element) % 2
    atom = gto.M(atom=[(element, (0, 0, 0))], basis=avas.MINAO, spin=spin, verbose=0)
    return len(atom.search_ao_label(f"{element} {shell}")) > 0


def _fresh_solver(mf: Any, settings: Settings) -> Any:
    space, s = settings[ACTIVE_SPACE], mf.mol.spin / 2
    electrons = active_electrons(space, mf.mol.spin)
    core = mf.mol.nelectron - space["electrons"]
    functions = np.shape(mf.mo_coeff)[-1]
    if core < 0 or core // 2 + space["orbitals"] > functions:
        text = (
            f"the active space {space_name(space)} does not fit into {functions} basis "
            f"functions with {mf.mol.nelectron} electrons; choose a smaller one"
        )
        raise Refused(Failure.UNSUPPORTED, text)
    solver = mcscf.CASSCF(mf, space["orbitals"], electrons)
    solver.fix_spin_(ss=s * (s + 1))
    solver.conv_tol = settings["cas_conv_tol"]  # hartree
    solver.conv_tol_grad = settings["cas_conv_tol_grad"]
    solver.max_cycle_macro = settings["cas_max_cycle"]
    solver.fcisolver.conv_tol = _CI_TOLERANCE * settings["cas_conv_tol"]
    solver.fcisolver.max_cycle = _CI_CYCLES
    solver.chkfile = None
    return solver


def _is_converged(solver: Any) -> bool:
    return bool(solver.converged and np.all(solver.fcisolver.converged))


def _second_order(mf: Any, settings: Settings, start: Floats) -> Any:
    """Return a solver with the result of second-order steps from the start."""
    solver = _fresh_solver(mf, settings)
    newton = mcscf.newton(solver)
    newton.kernel(start)
    for name in ("mo_coeff", "mo_energy", "ci", "e_tot", "e_cas", "converged"):
        setattr(solver, name, getattr(newton, name))
    solver.fcisolver.converged = newton.fcisolver.converged
    return solver


def _active_start(mf: Any, solver: Any, space: Mapping[str, Any]) -> Floats:
    """Return orbitals (functions, orbitals) in the order core, active, empty."""
    if "atomic_orbitals" in space:
        return _overlapping_start(mf, solver, space["atomic_orbitals"])
    orbitals: Floats = (
        mcscf.addons.make_natural_orbitals(mf)[1]
        if is_unrestricted(mf)
        else mf.mo_coeff
    )
    indices = space.get("indices", ())
    if not indices:
        return orbitals
    if max(indices) >= orbitals.shape[1]:
        text = f"there are {orbitals.shape[1]} orbitals, got the index {max(indices)}"
        raise Refused(Failure.UNSUPPORTED, f"{text} in the active space")
    sorted_orbitals: Floats = solver.sort_mo(indices, orbitals, base=0)
    return sorted_orbitals


def _overlapping_start(mf: Any, solver: Any, shells: list[str]) -> Floats:
    """Return the start whose active orbitals overlap most with atomic shells.

    AVAS takes as many as overlap by more than a threshold; here their number is given.
    Filled and empty orbitals are counted apart, those of spin alpha.
    """
    choice = avas.AVAS(mf, shells, canonicalize=False)
    choice.kernel()
    filled, empty = choice.occ_weights, choice.vir_weights
    alpha = solver.nelecas[0]
    many = np.count_nonzero(np.atleast_2d(mf.mo_occ)[0] > 0)
    by_overlap = np.concatenate(
        [np.argsort(filled, kind="stable"), many + np.argsort(-empty, kind="stable")]
    )
    first, last = many - alpha, many - alpha + solver.ncas
    weights = np.concatenate([filled, empty])[by_overlap][first:last]
    reached = int(np.count_nonzero(weights > _OVERLAP))
    if first < 0 or reached < solver.ncas:
        text = (
            f"the shells {', '.join(shells)} reach {reached} of {solver.ncas} active "
            "orbitals in this frame; name more shells, or a smaller active space"
        )
        raise Refused(Failure.UNSUPPORTED, text)
    orbitals: Floats = choice.mo_coeff[:, by_overlap]
    return orbitals
