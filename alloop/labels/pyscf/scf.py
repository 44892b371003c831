"""Mean fields: fresh molecules, fresh HF and Kohn-Sham objects, their gradients.

On a card only SCF iterations and gradients run, by GPU4PySCF. Everything else about a
label stays on this machine: guesses, the checks of stability, rivals and doubts work on
PySCF's own objects. This has not been run on a card.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from pyscf import dft, gto, scf

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.labels.pyscf.elements import (
    OF_THE_BASIS,
    core_name,
    has_core,
    without_core,
)
from alloop.labels.pyscf.level import wants_card
from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS, is_correlated
from alloop.labels.result import Refused

NO_CARD = (
    "`device: gpu` needs gpu4pyscf, which is not installed; pip install "
    "gpu4pyscf-cuda12x cutensor-cu12"
)
_SOLUTION = ("mo_energy", "mo_coeff", "mo_occ", "e_tot", "converged", "cycles")


def card_problem(settings: Any) -> str | None:
    """Return a sentence about a level that cannot be run on a card, or None."""
    if not wants_card(settings):
        return None
    method = settings["method"]
    if is_correlated(method):
        return f"GPU4PySCF has no gradient of {method}; leave `device` out"
    if "kpoints" in settings:
        return "levels for cells run on the CPU; leave `device` out"
    if importlib.util.find_spec("gpu4pyscf") is None:
        return NO_CARD
    return None


def card_version() -> str:
    """Return the name and version of the installed GPU4PySCF."""
    return f"gpu4pyscf {importlib.import_module('gpu4pyscf').__version__}"


def run_scf(mf: Any, settings: Any, start: Any = None) -> None:
    """Run the SCF of a mean field from a density matrix, by default from its guess.

    Where the level wants a card, the iterations run there, and their result is set on
    the object given.
    """
    if not wants_card(settings):
        mf.kernel(start)
        return
    there = to_card(mf)
    there.kernel(start)
    host = there.to_cpu()
    for name in _SOLUTION:
        setattr(mf, name, getattr(host, name))


def to_card(mf: Any) -> Any:
    """Return a mean field of GPU4PySCF with the settings and orbitals of PySCF's."""
    return mf.to_gpu()


def from_card(values: Any) -> Floats:
    """Return an array of CuPy, or of numpy, as numpy's."""
    array = values.get() if hasattr(values, "get") else values
    out: Floats = np.asarray(array, dtype=np.float64)
    return out


Settings: TypeAlias = Mapping[str, Any]


def atom_list(frame: Frame) -> list[tuple[str, list[float]]]:
    """Return elements and positions for PySCF, in bohr by our own constant."""
    elements = [chemical_symbol(int(z)) for z in frame.numbers]
    return list(zip(elements, (frame.positions / BOHR).tolist(), strict=True))


def make_molecule(frame: Frame, settings: Settings) -> Any:
    """Return a fresh Mole with its effective cores; raise Refused if one is missing."""
    elements = sorted({chemical_symbol(int(z)) for z in frame.numbers})
    if lacking := without_core(settings, elements):
        raise Refused(Failure.UNSUPPORTED, no_core(settings, lacking))
    name = core_name(settings)
    return gto.M(
        atom=atom_list(frame),
        unit="Bohr",
        basis=settings["basis"],
        ecp={element: name for element in elements if has_core(name, element)},
        charge=frame.charge,
        spin=frame.spin,
        max_memory=settings["max_memory"],
        verbose=0,
    )


def no_core(settings: Settings, elements: list[str]) -> str:
    """Return the message about elements without effective core or core functions."""
    return (
        f"the basis {settings['basis']!r} has no functions for the core electrons of "
        f"{', '.join(elements)} and no effective core; set `ecp`, or try def2-svp"
    )


def mean_field(mol: Any, settings: Settings) -> Any:
    """Return a fresh HF or Kohn-Sham object, by default restricted for spin 0."""
    open_shell = mol.spin or settings["reference"] == "unrestricted"
    if settings["method"] in WAVE_FUNCTIONS:
        mf = scf.UHF(mol) if open_shell else scf.RHF(mol)
    else:
        mf = _kohn_sham(dft.UKS(mol) if open_shell else dft.RKS(mol), settings)
    if settings["density_fit"]:
        auxiliary = settings["aux_basis"]
        mf = mf.density_fit(None if auxiliary == OF_THE_BASIS else auxiliary)
    if settings["dispersion"]:
        mf.disp = settings["dispersion"]
    return apply_thresholds(mf, settings)


def apply_thresholds(mf: Any, settings: Settings) -> Any:
    """Set the level's thresholds and no checkpoint file, and return the object."""
    mf.conv_tol = settings["conv_tol"]  # hartree
    mf.conv_tol_grad = settings["conv_tol_grad"]
    mf.max_cycle = settings["max_cycle"]
    mf.init_guess = settings["init_guess"]
    mf.chkfile = None
    return mf


def scf_gradient(mf: Any, settings: Settings) -> Floats:
    """Return dE/dx (atoms, 3) of a converged mean field in hartree/bohr."""
    if mf.mol.natm == 1:
        return np.zeros((1, 3))
    where = to_card(mf) if wants_card(settings) else mf
    gradient = where.nuc_grad_method()
    if settings["method"] not in WAVE_FUNCTIONS:
        gradient.grid_response = settings["grid_response"]
    return from_card(gradient.kernel())


def homo_lumo_gap(mf: Any) -> float | None:
    """Return the smaller HOMO-LUMO gap in eV of both spins; None without a LUMO."""
    energies, filled = np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ) > 0
    gaps = [
        e[~f].min() - e[f].max()
        for e, f in zip(energies, filled, strict=True)
        if f.any() and not f.all()
    ]
    return float(min(gaps)) * HARTREE if gaps else None


def homo(mf: Any) -> float:
    """Return the energy in eV of the highest occupied orbital of either spin."""
    energies, filled = np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ) > 0
    return float(energies[filled].max()) * HARTREE


def exact_exchange(method: str) -> float:
    """Return the share of exact exchange, 1 for wave functions.

    For a range-separated functional, it is the larger share of the two ranges.
    """
    if method in WAVE_FUNCTIONS:
        return 1.0
    _, far, near = dft.numint.NumInt().rsh_and_hybrid_coeff(method)
    return float(max(far, near))


def _kohn_sham(mf: Any, settings: Settings) -> Any:
    mf.xc = settings["method"]
    mf.grids.level = settings["grid"]
    # The cost of VV10 grows with the square of its grid, and it is smooth, so every
    # program uses a coarser grid for it.
    mf.nlcgrids.level = max(settings["grid"] - 2, 0)
    return mf
