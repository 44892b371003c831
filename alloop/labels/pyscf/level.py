"""Levels of PySCF with all defaults explicit; PySCF itself is not imported here."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alloop.core.cost_curve import Prior
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.label_cost import TypicalCost
from alloop.core.levels import (
    Level,
    energy_level,
    gives_forces,
    installed_version,
    make_level,
)
from alloop.core.text import nearest_word
from alloop.labels.pyscf.active_space import (
    ACTIVE_SPACE,
    checked_space,
    chosen_orbitals,
    space_name,
    space_refusal,
)
from alloop.labels.pyscf.spelling import (
    COUPLED_CLUSTER,
    MULTIREFERENCE,
    RUNGS,
    WAVE_FUNCTIONS,
    basis_name,
    functional_name,
    is_correlated,
    split_dispersion,
)
from alloop.labels.tolerances import EXACT, Tolerances

_SCF = {
    **{"conv_tol": 1e-9, "conv_tol_grad": None, "max_cycle": 50, "max_memory": 4000},
    **{"ladder": list(RUNGS), "init_guess": "minao", "reference": "auto"},
}
_MOLECULE = {"ecp": "of the basis", "stability": "auto"}
_FIT = {"aux_basis": "of the basis"}
_KS = {"grid": 3, "grid_response": True}
_CC = {"cc_conv_tol": 1e-8, "cc_conv_tol_normt": 1e-6, "cc_max_cycle": 100}
_CAS = {"cas_conv_tol": 1e-9, "cas_conv_tol_grad": 1e-5, "cas_max_cycle": 100}
_CARD = "device"  # a setting of levels on a card alone: others keep their ids
_CELL = {"kpoints": None, "pseudo": "gth-pbe", "ke_cutoff": 140.0}
_KNOWN = {**_SCF, **_MOLECULE, **_FIT, **_KS, **_CC, **_CAS, **_CELL, _CARD: "cpu"}

_TIGHT = {
    **{"conv_tol": 1e-12, "conv_tol_grad": 1e-6},
    **{"cc_conv_tol": 1e-11, "cc_conv_tol_normt": 1e-9},
    **{"cas_conv_tol": 1e-11, "cas_conv_tol_grad": 1e-6},
}

# Rounded from what ten levels cost for ten molecules of up to six heavy atoms
# (`python -m benchmarks.labels.cost_prediction`). The powers are lower than those of
# theory, which hold for molecules too large to label.
_COSTS = {
    "hf": TypicalCost(Prior(0.02, 20, 3.5, 1.2), Prior(130, 110, 3.5, 1.2)),
    "hf df": TypicalCost(Prior(0.02, 25, 2.8, 1.3), Prior(130, 100, 2.6, 1.2)),
    "ks": TypicalCost(Prior(0.07, 12, 2.4, 1.5), Prior(150, 55, 1.8, 1.2)),
    "mp2": TypicalCost(Prior(0.02, 17, 3.7, 1.2), Prior(130, 60, 3.1, 1.2)),
    "ccsd": TypicalCost(Prior(0.1, 15, 4.2, 2.0), Prior(130, 30, 3.5, 1.5), 1 / 3),
    "ccsd(t)": TypicalCost(Prior(0.1, 12, 5.9, 2.0), Prior(130, 17, 5.7, 1.5), 3 / 7),
    # five molecules of two to seven atoms with 4 to 6 active orbitals
    "casscf": TypicalCost(Prior(0.9, 40, 3.5, 1.2), Prior(130, 60, 3.1, 1.2)),
}
# Times of energies alone, rounded from those of four molecules of up to three heavy
# atoms (`python -m benchmarks.labels.gradient_cost`).
_ENERGY_TIMES = {
    "hf": Prior(0.02, 27, 2.8, 1.2),
    "hf df": Prior(0.02, 30, 2.6, 1.3),
    "ks": Prior(0.05, 14, 2.4, 1.5),
    "mp2": Prior(0.02, 26, 3.7, 1.2),
    "ccsd": Prior(0.05, 16, 4.4, 2.0),
    "ccsd(t)": Prior(0.1, 16, 5.8, 2.0),
    "casscf": Prior(0.8, 42, 3.5, 1.2),
}


# `casscf(6,6)`, `nevpt2(6-6)` and `casscf(6e,6o)`: electrons and orbitals.
_SPACE_NAME = re.compile(rf"({'|'.join(MULTIREFERENCE)})\((\d+)e?\s*[,-]\s*(\d+)o?\)")


def wants_card(settings: Mapping[str, Any]) -> bool:
    """Return True if a level's labels are made on a card."""
    return bool(settings.get("device") == "gpu")


def has_dipole(settings: Mapping[str, Any]) -> bool:
    """Return True for mean fields on a CPU; others would take a relaxed density."""
    return not is_correlated(settings["method"]) and not wants_card(settings)


def pyscf_level(
    method: str,
    basis: str,
    *,
    density_fit: bool = False,
    dispersion: str | None = None,
    frozen_core: bool = False,
    active_space: Mapping[str, Any] | None = None,
    **tuning: Any,
) -> Level:
    """Return a level of PySCF: hf, a functional, mp2, ccsd, ccsd(t), casscf, nevpt2.

    active_space: of casscf and nevpt2, which need one: {"electrons": 6, "orbitals": 6},
    with "indices" or "atomic_orbitals" if wanted (see `checked_space`). NEVPT2 is
    strongly contracted, without a core, and its labels are energies alone.
    dispersion: "d3bj", "d3zero" or "d4", or appended to the functional, `b3lyp-d3bj`.
    tuning: reference ("auto": restricted for spin 0; "unrestricted": spin symmetry is
    broken where that lowers the energy), stability ("auto", "always" or "never" on the
    first rung), ladder (some of `RUNGS`), ecp and aux_basis (names; default "of the
    basis"), grid (PySCF's level 0 to 9), grid_response, conv_tol (hartree),
    conv_tol_grad (default: the root of conv_tol), max_cycle, init_guess, max_memory
    (MB), cc_conv_tol, cc_conv_tol_normt, cc_max_cycle, cas_conv_tol,
    cas_conv_tol_grad, cas_max_cycle, device ("gpu": SCF and gradient
    of hf and functionals run on a card). With kpoints, such as [2, 1, 1], the level is
    for cells: pseudo is the pseudopotential, ke_cutoff that of the plane-wave grid in
    hartree. Only settings that the method uses become part of the
    level, so that levels differ only in these. Raises InputError for an unknown
    setting or an impossible active space.
    """
    _refuse_unknown(tuning, _KNOWN)
    method, suffix = split_dispersion(method.strip().lower())
    settings: dict[str, Any] = {
        "program": installed_version("pyscf"),
        "method": method,
        "basis": basis_name(basis).lower(),
        "density_fit": density_fit,
        "dispersion": _one_dispersion(
            suffix, dispersion.lower() if dispersion else None
        ),
    }
    if method in MULTIREFERENCE:
        _refuse_unfit(settings, frozen_core)
        settings[ACTIVE_SPACE] = checked_space(method, active_space)
    elif active_space:
        raise InputError(f"{method} has no active space; leave `active_space` out")
    elif is_correlated(method):
        settings["frozen_core"] = frozen_core
    defaults = _default_settings(settings, bool(tuning.get("kpoints")))
    settings |= {key: tuning.get(key, value) for key, value in defaults.items()}
    settings["conv_tol_grad"] = settings["conv_tol_grad"] or settings["conv_tol"] ** 0.5
    if tuning.get(_CARD, "cpu") != "cpu":
        settings[_CARD] = tuning[_CARD]
    _refuse_files(settings)
    level = make_level("pyscf", {**settings, "title": _level_title(settings)})
    return energy_level(level) if method == "nevpt2" else level


def _refuse_unfit(settings: Mapping[str, Any], frozen_core: bool) -> None:
    """Raise InputError for settings that a method with an active space cannot use."""
    method = settings["method"]
    if settings["density_fit"]:
        raise InputError(f"{method} takes exact integrals; leave `density_fit` out")
    if frozen_core:
        raise InputError(
            f"{method} optimises and correlates all orbitals; leave `frozen_core` out"
        )


def settings_from_name(word: str) -> dict[str, Any] | None:
    """Return the settings of a short name METHOD/BASIS, None for others."""
    method, _, basis = (part.strip() for part in word.partition("/"))
    if not (method and basis) or "/" in basis:
        return None
    method = method.replace("(bj)", "bj")  # as papers write D3(BJ)
    if match := _SPACE_NAME.fullmatch(method):
        electrons, orbitals = map(int, match.group(2, 3))
        space = {"electrons": electrons, "orbitals": orbitals}
        return {"method": match[1], "basis": basis, ACTIVE_SPACE: space}
    return {"method": method, "basis": basis}


def state_refusal(settings: Mapping[str, Any], frame: Frame) -> str | None:
    """Return why the level's active space does not fit a frame, None if it does."""
    space = settings.get(ACTIVE_SPACE)
    return None if space is None else space_refusal(space, frame)


def tolerances(settings: Mapping[str, Any]) -> Tolerances:
    """Return the thresholds of forces: looser where a grid does not turn with them."""
    if settings["method"] in WAVE_FUNCTIONS:
        return EXACT
    net_force = 1e-4 if settings.get("grid_response") else 0.02
    return Tolerances(net_force=net_force, torque=0.1)


def typical_cost(settings: Mapping[str, Any]) -> TypicalCost:
    """Return the typical cost of a label of the level's class of methods."""
    method = str(settings.get("method"))
    if method == "hf" and settings.get("density_fit"):
        method = "hf df"
    if method in MULTIREFERENCE:
        method = "casscf"
    if method not in _COSTS:
        method = "ks"
    cost = _COSTS[method]
    if gives_forces(settings):
        return cost
    return replace(cost, time=_ENERGY_TIMES[method])


def _refuse_files(settings: Mapping[str, Any]) -> None:
    """Raise InputError for a basis or potential given as a file or as text.

    PySCF would read it, but it may hold code, and the file's name alone would not tell
    two levels apart.
    """
    for key in ("basis", "ecp", "aux_basis", "pseudo"):
        name = str(settings.get(key, ""))
        text = "\n" in name
        if text or Path(name).is_file():
            raise InputError(
                f"expected the name of a set for `{key}`, {name[:40]!r} is a "
                f"{'text' if text else 'file'}; take one that PySCF has"
            )


def tighter_level(loose: Level) -> Level:
    """Return the level with numerical thresholds so tight that only noise remains.

    Energies to 1e-12 hartree, gradients of the SCF to 1e-6, coupled-cluster energies
    to 1e-11 and amplitudes to 1e-9, CASSCF energies to 1e-11 and gradients to 1e-6,
    the quadrature grid two levels up, the plane-wave cutoff by half, cycles doubled.
    Basis, k-points and ladder stay.
    """
    old = loose.settings
    new = {key: min(old[key], value) for key, value in _TIGHT.items() if key in old}
    cycles = ("max_cycle", "cc_max_cycle", "cas_max_cycle")
    new |= {key: 2 * old[key] for key in cycles if key in old}
    if "grid" in old:
        new["grid"] = min(old["grid"] + 2, 9)
    if "ke_cutoff" in old:
        new["ke_cutoff"] = 1.5 * old["ke_cutoff"]
    return make_level(loose.kind, {**old, **new, "title": f"{loose.title}, tight"})


def _default_settings(settings: Mapping[str, Any], cell: bool) -> dict[str, Any]:
    method = settings["method"]
    if cell:
        pseudo = "gth-pade" if method in ("lda", "svwn") else _CELL["pseudo"]
        return {**_SCF, **_CELL, "pseudo": pseudo, "ladder": list(RUNGS[:-1])}
    return {
        **_SCF,
        **_MOLECULE,
        **(_FIT if settings["density_fit"] else {}),
        **(_KS if method not in WAVE_FUNCTIONS else {}),
        **(_CC if method in COUPLED_CLUSTER else {}),
        **(_CAS if method in MULTIREFERENCE else {}),
    }


def _one_dispersion(suffix: str | None, dispersion: str | None) -> str | None:
    if suffix and dispersion and suffix != dispersion:
        raise InputError(
            f"expected one dispersion correction, got {suffix!r} with the method and "
            f"{dispersion!r} as `dispersion`; leave one out"
        )
    return suffix or dispersion


def _refuse_unknown(keys: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for key in keys:
        if key not in defaults:
            close = nearest_word(key, defaults)
            hint = f"did you mean {close!r}?" if close else ", ".join(defaults)
            raise InputError(f"a PySCF level has no setting {key!r}; {hint}")


def _level_title(settings: Mapping[str, Any]) -> str:
    method = settings["method"]
    name = method.upper() if method in WAVE_FUNCTIONS else functional_name(method)
    if ACTIVE_SPACE in settings:
        name += space_name(settings[ACTIVE_SPACE])
    if settings["dispersion"]:
        name += f"-{settings['dispersion'].upper()}"
    mesh = "×".join(map(str, settings.get("kpoints") or ()))
    orbitals = chosen_orbitals(settings.get(ACTIVE_SPACE, {}))
    notes = [
        *([orbitals] if orbitals else []),
        *(["unrestricted"] if settings["reference"] == "unrestricted" else []),
        *(["DF"] if settings["density_fit"] else []),
        *(["on a card"] if settings.get(_CARD) == "gpu" else []),
        *(["frozen core"] if settings.get("frozen_core") else []),
        *([f"grid {settings['grid']}"] if settings.get("grid", 3) != 3 else []),
        *([f"{mesh} k-points"] if mesh else []),
    ]
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{name}/{basis_name(settings['basis'])}{note}"
