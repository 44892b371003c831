"""Properties of a basis set for an element: functions, effective core, inner shell."""

import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import scipy.linalg
from pyscf import gto
from pyscf.gto import basis as basis_sets
from pyscf.lib.exceptions import BasisNotFoundError

OF_THE_BASIS = "of the basis"
_BOUND = 0.9  # of an electron's energy in the field of the bare nucleus
_HELIUM = 2


def _take_no_files() -> None:
    """Let PySCF take names of basis sets and potentials as names only.

    It would read a file of such a name from the working folder, also for sets that it
    chooses by itself (`def2-svp-jkfit` to fit, `ano` for guesses, `weigend`), and
    labels would change without a word.
    """
    path = SimpleNamespace(**{**vars(os.path), "isfile": lambda _name: False})
    basis_sets.os = SimpleNamespace(**{**vars(os), "path": path})


_take_no_files()


def core_name(settings: Mapping[str, Any]) -> str:
    """Return PySCF's name of the level's effective core potentials."""
    ecp: str = settings["ecp"]
    return settings["basis"] if ecp == OF_THE_BASIS else ecp


def has_functions(basis: str, element: str) -> bool:
    """Return True if the basis exists and has functions for the element."""
    return bool(_load_basis(basis_sets.load, basis, element))


def has_core(name: str, element: str) -> bool:
    """Return True if the name stands for an effective core potential of the element.

    PySCF must be given it, or it would put all electrons into a valence-only basis.
    """
    return bool(_load_basis(basis_sets.load_ecp, name, element))


def has_pseudo(name: str, element: str) -> bool:
    """Return True if there is a GTH pseudopotential of this name for the element."""
    from pyscf.pbc.gto import pseudo

    return bool(_load_basis(pseudo.load, name, element))


@cache
def holds_all_electrons(basis: str, element: str) -> bool:
    """Return True if the basis describes the innermost electrons of the element.

    Then no effective core is needed. An electron in the field of the bare nucleus has
    -Z²/2 hartree. From H to I, the all-electron basis sets of PySCF reach at least 0.93
    of it, the valence-only ones at most 0.76.
    """
    charge = gto.charge(element)
    if charge <= _HELIUM:
        return True
    mol = gto.M(atom=[(element, (0, 0, 0))], basis=basis, spin=charge % 2, verbose=0)
    core = mol.intor("int1e_kin") + mol.intor("int1e_nuc")
    lowest = scipy.linalg.eigh(core, mol.intor("int1e_ovlp"), eigvals_only=True)[0]
    return bool(lowest < -_BOUND * charge**2 / 2)


def without_core(settings: Mapping[str, Any], elements: list[str]) -> list[str]:
    """Return the elements with neither an effective core nor functions for the core."""
    name = core_name(settings)
    return [
        element
        for element in elements
        if not has_core(name, element)
        and not holds_all_electrons(settings["basis"], element)
    ]


def _load_basis(load: Callable[..., Any], name: str, element: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice to install another package
        try:
            return load(name, element)
        except (BasisNotFoundError, KeyError, RuntimeError, OSError, TypeError):
            return None
