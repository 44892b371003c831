"""What is wrong with a PySCF level, found before any label is asked for."""

import warnings
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from pyscf import dft
from pyscf.gto import basis as basis_sets
from pyscf.lib.exceptions import BasisNotFoundError

from alloop.core.frame import Frame
from alloop.labels.gate import WAVE_FUNCTIONS
from alloop.labels.outcome import Refused
from alloop.labels.pyscf.label import label_with_pyscf
from alloop.labels.pyscf.level import BASES, FUNCTIONALS
from alloop.labels.pyscf.scf import RUNGS, Settings

_COMMON = ("H", "He", "C", "O", "Cl", "Fe", "I")
_DISPERSIONS = ("d3bj", "d3zero", "d4")


def problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    """One sentence for each thing that cannot work; empty if the level is sound."""
    found = [
        *_method(settings["method"]),
        *_basis(settings["basis"], elements),
        *_dispersion(settings["dispersion"]),
        *_ladder(settings["ladder"]),
    ]
    return found or _trial(settings)


def _method(method: str) -> list[str]:
    if method in WAVE_FUNCTIONS:
        return []
    try:
        dft.libxc.parse_xc(method)
    except (KeyError, ValueError):
        known = [*WAVE_FUNCTIONS, *(f.lower() for f in FUNCTIONALS), *_functionals()]
        hint = _nearest(method, known, "try hf, b3lyp, wb97x-d3bj, mp2 or ccsd(t)")
        return [f"PySCF knows no method or functional {method!r}; {hint}"]
    return []


def _basis(basis: str, elements: Sequence[str]) -> list[str]:
    if not any(_has(basis, element) for element in (*elements, *_COMMON)):
        known = [*(b.lower() for b in BASES), *basis_sets.ALIAS]
        hint = _nearest(basis, known, "try def2-svp")
        return [f"PySCF knows no basis {basis!r}; {hint}"]
    missing = [element for element in elements if not _has(basis, element)]
    if not missing:
        return []
    lacks = ", ".join(missing)
    return [f"the basis {basis!r} has no functions for {lacks}; try def2-svp"]


def _dispersion(dispersion: str | None) -> list[str]:
    if dispersion is None or dispersion in _DISPERSIONS:
        return []
    hint = _nearest(dispersion, _DISPERSIONS, "try d3bj")
    return [f"there is no dispersion correction {dispersion!r}; {hint}"]


def _ladder(ladder: Sequence[str]) -> list[str]:
    strange = [rung for rung in ladder if rung not in RUNGS]
    return [
        f"the ladder has no rung {rung!r}; {_nearest(rung, list(RUNGS), '')}"
        for rung in strange
    ]


def _trial(settings: Settings) -> list[str]:
    """Label a hydrogen molecule in the smallest basis: is there a gradient at all?"""
    frame = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]))
    try:
        label_with_pyscf(frame, {**settings, "basis": "sto-3g", "grid": 0})
    except Refused as refused:
        return [f"the level cannot be used: {refused.message}"]
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return [f"PySCF cannot do this level: {type(error).__name__}: {error}"]
    return []


def _has(basis: str, element: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice to install another package
        try:
            return bool(basis_sets.load(basis, element))
        except (BasisNotFoundError, KeyError, OSError):
            return False


def _functionals() -> list[str]:
    return [str(name).lower() for name in dft.libxc.XC_ALIAS]


def _nearest(name: str, known: Sequence[str], otherwise: str) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise
