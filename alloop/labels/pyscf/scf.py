"""The mean field: a fresh molecule, and a ladder of ways to converge it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from pyscf import dft, gto, scf
from pyscf.gto import basis as basis_sets

from alloop.core.atoms import symbol
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.labels.gate import WAVE_FUNCTIONS
from alloop.labels.outcome import Refused

Settings: TypeAlias = Mapping[str, Any]


def molecule(frame: Frame, settings: Settings) -> Any:
    """A fresh Mole, in bohr by our own constant, with its basis' effective cores."""
    elements = [symbol(int(z)) for z in frame.numbers]
    return gto.M(
        atom=list(zip(elements, (frame.positions / BOHR).tolist(), strict=True)),
        unit="Bohr",
        basis=settings["basis"],
        ecp={e: settings["basis"] for e in set(elements) if has_core(settings, e)},
        charge=frame.charge,
        spin=frame.spin,
        max_memory=settings["max_memory"],
        verbose=0,
    )


def has_core(settings: Settings, element: str) -> bool:
    """Whether the basis comes with an effective core potential for the element.

    Without being told, PySCF would put all electrons into a valence-only basis.
    """
    return bool(basis_sets.load_ecp(settings["basis"], element))


def mean_field(mol: Any, settings: Settings) -> Any:
    """A fresh HF or Kohn-Sham object: restricted for spin 0, unrestricted otherwise."""
    if settings["method"] in WAVE_FUNCTIONS:
        mf = scf.UHF(mol) if mol.spin else scf.RHF(mol)
    else:
        mf = _kohn_sham(mol, settings)
    if settings["density_fit"]:
        mf = mf.density_fit()
    if settings["dispersion"]:
        mf.disp = settings["dispersion"]
    mf.conv_tol = settings["conv_tol"]  # hartree
    mf.max_cycle = settings["max_cycle"]
    mf.init_guess = settings["init_guess"]
    mf.chkfile = None
    return mf


def converged_scf(mol: Any, settings: Settings) -> tuple[Any, str]:
    """The mean field of the first rung that converges; raises Refused if none does."""
    mf = None
    for rung in settings["ladder"]:
        mf = RUNGS[rung](mol, settings, mf)
        if mf.converged:
            return mf, rung
    rungs = ", ".join(settings["ladder"])
    raise Refused(
        Failure.NOT_CONVERGED,
        f"the SCF did not converge on any rung ({rungs})",
        {"rung": settings["ladder"][-1], "cycles": int(mf.cycles) if mf else 0},
    )


def _default(mol: Any, settings: Settings, _last: Any) -> Any:
    mf = mean_field(mol, settings)
    mf.kernel()
    return mf


def _damping(mol: Any, settings: Settings, _last: Any) -> Any:
    mf = mean_field(mol, settings)
    mf.damp, mf.diis_start_cycle = 0.5, 4
    mf.max_cycle *= 2
    mf.kernel()
    return mf


def _level_shift(mol: Any, settings: Settings, _last: Any) -> Any:
    mf = mean_field(mol, settings)
    mf.level_shift = 0.3  # hartree
    mf.max_cycle *= 3
    mf.kernel()
    return mf


def _second_order(mol: Any, settings: Settings, last: Any) -> Any:
    """Newton steps from the last rung's orbitals: from a guess they go astray."""
    mf = mean_field(mol, settings)
    solver = mf.newton()
    start = (None, None) if last is None else (last.mo_coeff, last.mo_occ)
    solver.kernel(*start)
    for name in ("mo_energy", "mo_coeff", "mo_occ", "e_tot", "converged"):
        setattr(mf, name, getattr(solver, name))
    return mf


RUNGS: dict[str, Callable[[Any, Settings, Any], Any]] = {
    "default": _default,
    "damping": _damping,
    "level shift": _level_shift,
    "second order": _second_order,
}


def _kohn_sham(mol: Any, settings: Settings) -> Any:
    try:
        dft.libxc.parse_xc(settings["method"])
    except (KeyError, ValueError) as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    mf = dft.UKS(mol) if mol.spin else dft.RKS(mol)
    mf.xc = settings["method"]
    mf.grids.level = settings["grid"]
    return mf


def scf_gradient(mf: Any, settings: Settings) -> Floats:
    """dE/dx (atoms, 3) of a converged mean field in hartree/bohr."""
    if mf.mol.natm == 1:
        return np.zeros((1, 3))
    gradient = mf.nuc_grad_method()
    if settings["method"] not in WAVE_FUNCTIONS:
        gradient.grid_response = settings["grid_response"]
    out: Floats = gradient.kernel()
    return out


def gap(mf: Any) -> float | None:
    """HOMO-LUMO gap in eV, the smaller of the two spins'; None without a LUMO."""
    energies, filled = np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ) > 0
    gaps = [
        e[~f].min() - e[f].max()
        for e, f in zip(energies, filled, strict=True)
        if f.any() and not f.all()
    ]
    return float(min(gaps)) * HARTREE if gaps else None
