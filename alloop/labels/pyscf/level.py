"""Levels of PySCF with every default spelled out. Imports no PySCF."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from alloop.core.errors import InputError
from alloop.core.levels import Level, installed, level
from alloop.labels.gate import WAVE_FUNCTIONS

BASES = (
    *("STO-3G", "3-21G", "6-31G", "6-31G*", "6-31G**", "6-31+G*", "6-31++G**"),
    *("6-311G", "6-311G*", "6-311G**", "6-311+G**", "6-311++G**"),
    *("def2-SVP", "def2-SVPD", "def2-TZVP", "def2-TZVPD", "def2-TZVPP", "def2-TZVPPD"),
    *("def2-QZVP", "def2-QZVPP", "pc-0", "pc-1", "pc-2", "pcseg-1", "pcseg-2"),
    *("cc-pVDZ", "cc-pVTZ", "cc-pVQZ", "cc-pV5Z", "cc-pCVDZ", "cc-pCVTZ"),
    *("aug-cc-pVDZ", "aug-cc-pVTZ", "aug-cc-pVQZ", "LANL2DZ"),
)
FUNCTIONALS = (
    *("SVWN", "PBE", "PBE0", "revPBE", "BLYP", "BP86", "B3LYP", "CAM-B3LYP", "HSE06"),
    *("TPSS", "TPSSh", "SCAN", "r2SCAN", "r2SCAN0", "M06", "M06-L", "M06-2X"),
    *("wB97X-V", "wB97M-V", "wB97X-D3BJ", "wB97M-D3BJ", "B97M-V"),
)
RUNGS = ("default", "damping", "level shift", "second order")

_SCF = {"conv_tol": 1e-9, "max_cycle": 50, "ladder": list(RUNGS), "init_guess": "minao"}
_KS = {"grid": 3, "grid_response": True}
_CC = {"cc_conv_tol": 1e-8, "cc_conv_tol_normt": 1e-6, "cc_max_cycle": 100}


def pyscf_level(
    method: str,
    basis: str,
    *,
    density_fit: bool = False,
    dispersion: str | None = None,
    frozen_core: bool = False,
    **tuning: Any,
) -> Level:
    """A level of PySCF: hf, a Kohn-Sham functional, mp2, ccsd or ccsd(t).

    dispersion: "d3bj" or "d4". tuning: grid (PySCF's level 0 to 9), grid_response,
    conv_tol and max_cycle of the SCF, ladder (some of `RUNGS`), init_guess, max_memory
    (MB), cc_conv_tol, cc_conv_tol_normt, cc_max_cycle. Only settings that the method
    uses become part of the level, so that they alone tell levels apart.
    """
    method, basis = method.strip().lower(), _basis(basis).lower()
    defaults: dict[str, Any] = {**_SCF, "max_memory": 4000}
    settings: dict[str, Any] = {
        "program": installed("pyscf"),
        "method": method,
        "basis": basis,
        "ecp": "of the basis",
        "density_fit": density_fit,
        "dispersion": dispersion.lower() if dispersion else None,
    }
    if method not in WAVE_FUNCTIONS:
        defaults |= _KS
    if method in WAVE_FUNCTIONS[1:]:
        settings["frozen_core"] = frozen_core
    if method in WAVE_FUNCTIONS[2:]:
        defaults |= _CC
    _refuse_unknown(tuning, {**_SCF, **_KS, **_CC, "max_memory": 0})
    settings |= {key: tuning.get(key, value) for key, value in defaults.items()}
    return level("pyscf", {**settings, "title": _title(settings)})


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in given:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else ", ".join(known)
            raise InputError(f"a PySCF level has no setting {key!r}; {hint}")


def _title(settings: Mapping[str, Any]) -> str:
    method = settings["method"]
    name = method.upper() if method in WAVE_FUNCTIONS else _functional(method)
    if settings["dispersion"]:
        name += f"-{settings['dispersion'].upper()}"
    notes = [
        *(["DF"] if settings["density_fit"] else []),
        *(["frozen core"] if settings.get("frozen_core") else []),
        *([f"grid {settings['grid']}"] if settings.get("grid", 3) != 3 else []),
    ]
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{name}/{_basis(settings['basis'])}{note}"


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _basis(name: str) -> str:
    return {_plain(known): known for known in BASES}.get(_plain(name), name.strip())


def _functional(name: str) -> str:
    known = {functional.lower(): functional for functional in FUNCTIONALS}
    return known.get(name, name.upper())
