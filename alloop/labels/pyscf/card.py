"""SCF iterations and gradients on a card, by GPU4PySCF.

Everything else about a label stays on this machine: guesses, the checks of stability,
rivals and doubts work on PySCF's own objects. This has not been run on a card.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np

from alloop.core.units import Floats
from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS

MISSING = (
    "`device: gpu` needs gpu4pyscf, which is not installed; pip install "
    "gpu4pyscf-cuda12x cutensor-cu12"
)
_SOLUTION = ("mo_energy", "mo_coeff", "mo_occ", "e_tot", "converged", "cycles")


def wants_card(settings: Any) -> bool:
    """Return True if a level's labels are made on a card."""
    return bool(settings.get("device") == "gpu")


def card_problem(settings: Any) -> str | None:
    """Return a sentence about a level that cannot be run on a card, or None."""
    if not wants_card(settings):
        return None
    method = settings["method"]
    if method in WAVE_FUNCTIONS[1:]:
        return f"GPU4PySCF has no gradient of {method}; leave `device` out"
    if "kpoints" in settings:
        return "levels for cells run on the CPU; leave `device` out"
    if importlib.util.find_spec("gpu4pyscf") is None:
        return MISSING
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
