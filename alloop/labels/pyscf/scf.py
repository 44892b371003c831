"""The mean field: a fresh molecule, a fresh HF or Kohn-Sham object, its gradient."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from pyscf import dft, gto, scf

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.labels.gate import WAVE_FUNCTIONS
from alloop.labels.pyscf.elements import (
    OF_THE_BASIS,
    core_name,
    has_core,
    without_core,
)
from alloop.labels.result import Refused

Settings: TypeAlias = Mapping[str, Any]


def atom_list(frame: Frame) -> list[tuple[str, list[float]]]:
    """Elements and positions in bohr by our own constant, as PySCF takes them."""
    elements = [chemical_symbol(int(z)) for z in frame.numbers]
    return list(zip(elements, (frame.positions / BOHR).tolist(), strict=True))


def make_molecule(frame: Frame, settings: Settings) -> Any:
    """A fresh Mole with its effective cores; raises Refused where one is missing."""
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
    """The sentence about elements whose core electrons have no place."""
    return (
        f"the basis {settings['basis']!r} has no functions for the core electrons of "
        f"{', '.join(elements)} and no effective core; set `ecp`, or try def2-svp"
    )


def mean_field(mol: Any, settings: Settings) -> Any:
    """A fresh HF or Kohn-Sham object: restricted for spin 0 unless told otherwise."""
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
    """The object with the level's thresholds, and no file of its own."""
    mf.conv_tol = settings["conv_tol"]  # hartree
    mf.conv_tol_grad = settings["conv_tol_grad"]
    mf.max_cycle = settings["max_cycle"]
    mf.init_guess = settings["init_guess"]
    mf.chkfile = None
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


def homo_lumo_gap(mf: Any) -> float | None:
    """HOMO-LUMO gap in eV, the smaller of the two spins'; None without a LUMO."""
    energies, filled = np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ) > 0
    gaps = [
        e[~f].min() - e[f].max()
        for e, f in zip(energies, filled, strict=True)
        if f.any() and not f.all()
    ]
    return float(min(gaps)) * HARTREE if gaps else None


def homo(mf: Any) -> float:
    """Energy in eV of the highest occupied orbital, of either spin."""
    energies, filled = np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ) > 0
    return float(energies[filled].max()) * HARTREE


def exact_exchange(method: str) -> float:
    """The share of exact exchange, 1 for wave functions; the larger of two ranges."""
    if method in WAVE_FUNCTIONS:
        return 1.0
    _, far, near = dft.numint.NumInt().rsh_and_hybrid_coeff(method)
    return float(max(far, near))


def _kohn_sham(mf: Any, settings: Settings) -> Any:
    mf.xc = settings["method"]
    mf.grids.level = settings["grid"]
    # The cost of VV10 goes with the square of its grid, and it is smooth: every
    # program takes a coarser one for it.
    mf.nlcgrids.level = max(settings["grid"] - 2, 0)
    return mf
