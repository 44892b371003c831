"""Labels by GFN1- and GFN2-xTB through tblite, for molecules and for cells.

GFN1-xTB: Grimme, Bannwarth and Shushkov, JCTC 13, 1989 (2017). GFN2-xTB: Bannwarth,
Ehlert and Grimme, JCTC 15, 1652 (2019). The energy is the free energy at the electronic
temperature, whose negative gradient the forces are. A cell is treated at the Gamma
point alone, so it must be large. Every label gets a fresh calculator and one thread:
with two, tblite's sums change from run to run.
"""

import ctypes
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from alloop.core.atoms import atomic_number
from alloop.core.cost_curve import Prior
from alloop.core.dipoles import dipole_details
from alloop.core.frame import Frame
from alloop.core.label_cost import TypicalCost
from alloop.core.levels import Level, installed_version, make_level
from alloop.core.records import Detail, Failure
from alloop.core.stress import voigt
from alloop.core.text import known_word
from alloop.core.units import BOHR, BOLTZMANN, HARTREE
from alloop.labels.result import Refused, Result

METHODS = {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB"}
MISSING = "xTB levels need tblite, which is not installed: pip install alloop[xtb]"
COST = TypicalCost(Prior(0.002, 100, 2.5, 1.0), Prior(75, 200, 3.0, 1.0))
_NAME = re.compile(r"(sp)?(gfn[12])(?:-?xtb)?")
_LANTHANOIDS = range(57, 72)  # atomic numbers
_LAST = 86  # the heaviest element with parameters
_MESSAGES = (  # parts of tblite's messages, and the failures they stand for
    ("not converged", Failure.NOT_CONVERGED),
    ("eigenvalue problem", Failure.NOT_CONVERGED),
    ("not compatible", Failure.ELECTRONS),
    ("No support for elements", Failure.UNSUPPORTED),
    ("interatomic distances", Failure.GEOMETRY),
)


def xtb_level(
    method: str = "gfn2-xtb",
    *,
    spin_polarized: bool = False,
    accuracy: float = 0.01,
    temperature: float = 300.0,
    max_cycle: int = 250,
) -> Level:
    """Return a level of extended tight binding: gfn1-xtb or gfn2-xtb.

    spin_polarized adds the energy of spin polarisation (spGFN-xTB: Neugebauer et al.,
    J. Comput. Chem. 44, 2120 (2023)), without which triplet oxygen lies above the
    singlet. accuracy is tblite's (1 is its default, smaller is tighter), temperature
    that of the electrons in K. Raises InputError for an unknown method.
    """
    name = known_word(method, METHODS, "xTB method")
    note = f" ({temperature:g} K)" if temperature != 300.0 else ""
    settings = {
        "title": f"{'sp' if spin_polarized else ''}{METHODS[name]}{note}",
        "program": installed_version("tblite"),
        "method": name,
        "spin_polarized": spin_polarized,
        "accuracy": float(accuracy),
        "temperature": float(temperature),
        "max_cycle": max_cycle,
    }
    return make_level("xtb", settings)


def settings_from_name(word: str) -> dict[str, Any] | None:
    """Return the settings of a short name such as `gfn2-xtb`, None for others."""
    match = _NAME.fullmatch(word)
    if match is None:
        return None
    polarized = {"spin_polarized": True} if match[1] else {}
    return {"method": f"{match[2]}-xtb", **polarized}


def tighter_level(loose: Level) -> Level:
    """Return the level with a tenth of its accuracy setting; smaller is tighter."""
    settings = loose.settings
    return make_level("xtb", {**settings, "accuracy": settings["accuracy"] / 10})


def counts_electrons(frame: Frame) -> bool:
    """Return True if charge and spin must fit the electrons of the frame's atoms.

    GFN-xTB leaves out the f electrons of lanthanoids.
    """
    return not any(z in _LANTHANOIDS for z in frame.numbers)


def label_with_xtb(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return free energy, forces and, for a cell, stress; raise Refused on failure."""
    _refuse_frame(frame, settings)
    from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError

    _one_thread()
    try:
        answer = _make_calculator(frame, settings).singlepoint()
    except TBLiteRuntimeError as error:
        raise Refused(_failure_of_message(str(error)), f"tblite: {error}") from error
    except TBLiteValueError as error:
        raise Refused(Failure.UNSUPPORTED, f"tblite: {error}") from error
    details = {"program": settings["program"], **_orbital_details(frame, answer)}
    stress = None
    if any(frame.pbc):
        volume = abs(np.linalg.det(frame.cell))  # Å³
        stress = voigt(answer.get("virial") * HARTREE / volume)
    else:
        details |= dipole_details(np.asarray(answer.get("dipole")) * BOHR)
    forces = -np.asarray(answer.get("gradient")) * (HARTREE / BOHR)  # (atoms, 3)
    return Result(float(answer.get("energy")) * HARTREE, forces, details, stress)


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """Return what cannot work with this level and these elements, a sentence each."""
    if _installed_tblite() == "tblite":
        return [MISSING]
    heavy = [element for element in elements if atomic_number(element) > _LAST]
    title, texts = settings["title"], []
    if heavy:
        texts.append(f"{title} ends with radon, it cannot do {', '.join(heavy)}")
    for key in ("accuracy", "max_cycle"):
        if not settings[key] > 0:
            texts.append(f"expected `{key}` above 0, got {settings[key]}")
    if not (settings["temperature"] >= 0 and math.isfinite(settings["temperature"])):
        texts.append(f"expected a temperature in K, got {settings['temperature']}")
    return texts


def _refuse_frame(frame: Frame, settings: Mapping[str, Any]) -> None:
    if _installed_tblite() == "tblite":
        raise Refused(Failure.UNSUPPORTED, MISSING)
    if settings["program"] != _installed_tblite():
        text = (
            f"this level belongs to {settings['program']}, {_installed_tblite()} is "
            "installed"
        )
        raise Refused(Failure.UNSUPPORTED, text)
    if any(frame.pbc) and not all(frame.pbc):  # tblite would not report this
        text = "tblite repeats a cell in all three directions or in none"
        raise Refused(Failure.UNSUPPORTED, f"{text}, got pbc {frame.pbc}")


def _make_calculator(frame: Frame, settings: Mapping[str, Any]) -> Any:
    from tblite.interface import Calculator

    periodic = any(frame.pbc)
    calculator = Calculator(
        METHODS[settings["method"]],
        frame.numbers,
        frame.positions / BOHR,
        charge=float(frame.charge),
        uhf=frame.spin,
        lattice=frame.cell / BOHR if periodic else None,
        periodic=np.array(frame.pbc) if periodic else None,
        logger=_silent_logger,
    )
    calculator.set("verbosity", 0)
    calculator.set("accuracy", settings["accuracy"])
    calculator.set("temperature", settings["temperature"] * BOLTZMANN / HARTREE)
    calculator.set("max-iter", settings["max_cycle"])
    if settings["spin_polarized"]:
        calculator.add("spin-polarization", 1.0)
    return calculator


def _orbital_details(frame: Frame, answer: Any) -> dict[str, Detail]:
    """Return the number of functions, and the gap (eV) of a closed shell.

    Raises Refused if charge and spin do not fit the electrons: tblite fills the
    orbitals that there are without a warning.
    """
    energies = np.atleast_2d(answer.get("orbital-energies"))[0] * HARTREE  # eV
    electrons = round(float(answer.get("orbital-occupations").sum()))
    if electrons < max(1, frame.spin) or (electrons - frame.spin) % 2:
        text = f"{electrons} valence electrons cannot have spin {frame.spin} (2S)"
        raise Refused(Failure.ELECTRONS, f"{text} with charge {frame.charge}")
    facts: dict[str, Detail] = {"functions": len(energies)}
    filled = electrons // 2
    if frame.spin == 0 and filled < len(energies):
        facts["gap"] = float(energies[filled] - energies[filled - 1])
    return facts


def _failure_of_message(message: str) -> Failure:
    return next((why for part, why in _MESSAGES if part in message), Failure.CRASHED)


@cache
def _installed_tblite() -> str:
    """Return tblite with its version, or `tblite` alone if it is not installed."""
    return installed_version("tblite")


def _one_thread() -> None:
    """Set tblite's own OpenMP, if any, to one thread whatever the environment says."""
    library = _openmp_library()
    if hasattr(library, "omp_set_num_threads"):
        library.omp_set_num_threads(1)


@cache
def _openmp_library() -> ctypes.CDLL:
    from tblite import _libtblite

    return ctypes.CDLL(_libtblite.__file__)


def _silent_logger(_text: str) -> None:
    """Ignore a message that tblite prints through this callback."""
