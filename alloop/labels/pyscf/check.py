"""Checks of a PySCF level before any label is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyscf.gto import basis as basis_sets

from alloop.core.frame import Frame
from alloop.core.text import nearest_word
from alloop.labels.pyscf.card import card_problem
from alloop.labels.pyscf.elements import (
    OF_THE_BASIS,
    has_core,
    has_functions,
    has_pseudo,
    without_core,
)
from alloop.labels.pyscf.functionals import (
    dispersion_problem,
    is_known_functional,
    known_functionals,
)
from alloop.labels.pyscf.label import label_with_pyscf, refuse_level
from alloop.labels.pyscf.periodic import PSEUDOS, cell_problem
from alloop.labels.pyscf.scf import Settings, no_core
from alloop.labels.pyscf.spelling import (
    BASES,
    DISPERSIONS,
    FUNCTIONALS,
    RUNGS,
    WAVE_FUNCTIONS,
)
from alloop.labels.result import Refused

_LIMITS = ("cbs", "complete basis set", "basis set limit")
_COMMON = ("H", "He", "C", "O", "Cl", "Fe", "I")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "reference": ("auto", "unrestricted"),
    "stability": ("auto", "always", "never"),
    "init_guess": ("minao", "atom", "huckel", "mod_huckel", "1e", "sap"),
}


def problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    """Return a sentence for each problem of the level; empty if it is sound."""
    texts = [
        *_method_problems(settings["method"]),
        *_basis_problems(settings["basis"], elements),
        *_dispersion_problems(settings["dispersion"]),
        *_ladder_problems(settings["ladder"]),
        *_choice_problems(settings),
    ]
    if texts:
        return texts
    if problem := card_problem(settings):
        return [problem]
    if "kpoints" in settings:
        problem = cell_problem(settings)
        texts = [problem] if problem else []
        return [*texts, *_pseudo_problems(settings["pseudo"], elements)]
    texts = [
        *_core_problems(settings, elements),
        *_auxiliary_problems(settings, elements),
    ]
    if problem := dispersion_problem(settings["method"], settings["dispersion"]):
        texts.append(problem)
    return texts or _trial_problems(settings)


def _method_problems(method: str) -> list[str]:
    if method in WAVE_FUNCTIONS:
        return []
    if is_known_functional(method):
        return []
    names = [*WAVE_FUNCTIONS, *(f.lower() for f in FUNCTIONALS), *known_functionals()]
    hint = _nearest_name(method, names, "try hf, b3lyp, wb97x-d3bj, mp2 or ccsd(t)")
    return [f"PySCF knows no method or functional {method!r}; {hint}"]


def _basis_problems(basis: str, elements: Sequence[str]) -> list[str]:
    if not any(has_functions(basis, element) for element in (*elements, *_COMMON)):
        names = [*(b.lower() for b in BASES), *basis_sets.ALIAS, *basis_sets.GTH_ALIAS]
        hint = _nearest_name(basis, names, "try def2-svp")
        if basis.lower().startswith(_LIMITS):
            hint = "it is the limit of a series, not a basis; name one, such as cc-pvqz"
        return [f"PySCF knows no basis {basis!r}; {hint}"]
    lacks = ", ".join(e for e in elements if not has_functions(basis, e))
    if not lacks:
        return []
    return [f"the basis {basis!r} has no functions for {lacks}; try def2-svp"]


def _core_problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    name = settings["ecp"]
    if name != OF_THE_BASIS and not any(
        has_core(name, element) for element in (*elements, "Cu", "I", "Au")
    ):
        names = [*(b.lower() for b in BASES), *basis_sets.ALIAS]
        hint = _nearest_name(name, names, "try def2-svp")
        return [f"PySCF knows no effective core {name!r}; {hint}"]
    lacking = without_core(settings, list(elements))
    return [no_core(settings, lacking)] if lacking else []


def _auxiliary_problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    name = settings.get("aux_basis", OF_THE_BASIS)
    lacks = [e for e in elements if name != OF_THE_BASIS and not has_functions(name, e)]
    if not lacks:
        return []
    fits = [n for n in basis_sets.ALIAS if n.endswith("fit")]
    hint = _nearest_name(name, fits, "try def2-universal-jkfit")
    return [f"the fitting basis {name!r} has nothing for {', '.join(lacks)}; {hint}"]


def _pseudo_problems(name: str, elements: Sequence[str]) -> list[str]:
    lacks = [element for element in elements if not has_pseudo(name, element)]
    if not lacks:
        return []
    hint = _nearest_name(name, PSEUDOS, "try gth-pbe")
    return [f"the pseudopotential {name!r} has nothing for {', '.join(lacks)}; {hint}"]


def _dispersion_problems(dispersion: str | None) -> list[str]:
    if dispersion is None or dispersion in DISPERSIONS:
        return []
    hint = _nearest_name(dispersion, DISPERSIONS, "try d3bj")
    return [f"there is no dispersion correction {dispersion!r}; {hint}"]


def _ladder_problems(ladder: Sequence[str]) -> list[str]:
    if not ladder:
        return [f"the ladder has no rung; give some of {', '.join(RUNGS)}"]
    strange = [rung for rung in ladder if rung not in RUNGS]
    return [
        f"the ladder has no rung {rung!r}; "
        f"{_nearest_name(rung, RUNGS, ', '.join(RUNGS))}"
        for rung in strange
    ]


def _choice_problems(settings: Settings) -> list[str]:
    return [
        f"`{key}` is one of {', '.join(allowed)}, got {settings[key]!r}; "
        f"{_nearest_name(str(settings[key]), allowed, f'try {allowed[0]}')}"
        for key, allowed in _CHOICES.items()
        if key in settings and settings[key] not in allowed
    ]


def _trial_problems(settings: Settings) -> list[str]:
    """Label a hydrogen molecule in the smallest basis, and return what goes wrong."""
    frame = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]))
    small: dict[str, Any] = {**settings, "basis": "sto-3g", "ecp": OF_THE_BASIS}
    small.pop("device", None)  # this machine may have no card
    try:
        refuse_level(settings)
        label_with_pyscf(frame, {**small, "aux_basis": OF_THE_BASIS, "grid": 0})
    except Refused as refused:
        return [f"the level cannot be used: {refused.message}"]
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return [f"PySCF cannot do this level: {type(error).__name__}: {error}"]
    return []


def _nearest_name(name: str, names: Sequence[str], otherwise: str) -> str:
    close = nearest_word(name, names)
    return f"did you mean {close!r}?" if close else otherwise
