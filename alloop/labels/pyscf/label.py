"""Labels by PySCF: the numbers, and an honest word when there are none.

PySCF raises nothing when an SCF, coupled-cluster or lambda iteration does not converge
and returns forces all the same, so every `converged` is tested here. It also cuts its
work by the memory that its process uses; here each label gets fresh objects, one thread
and a fixed memory, so that its bits do not depend on what ran before.
"""

from typing import Any

import numpy as np
import pyscf
from pyscf import lib
from pyscf.lib.exceptions import BasisNotFoundError

from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.units import BOHR, HARTREE
from alloop.labels.gate import WAVE_FUNCTIONS
from alloop.labels.outcome import Refused, Result
from alloop.labels.pyscf.correlation import Details, answer
from alloop.labels.pyscf.scf import Settings, converged_scf, gap, molecule

NO_EXACT_GRADIENT = (
    "PySCF's density-fitted {method} has no exact gradient; set density_fit to false"
)


def label_with_pyscf(frame: Frame, settings: Settings) -> Result:
    """Energy and forces of a molecule; raises Refused where they cannot be trusted."""
    lib.num_threads(1)
    lib.current_memory = _nothing_used
    refuse_foreign(frame, settings)
    try:
        mf, rung = converged_scf(molecule(frame, settings), settings)
        details = _details(mf, rung, settings)
        energy, gradient = answer(mf, settings, details)
    except np.linalg.LinAlgError as error:
        raise Refused(Failure.NOT_CONVERGED, f"the SCF broke down: {error}") from error
    except (BasisNotFoundError, NotImplementedError) as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    forces = -np.asarray(gradient, dtype=np.float64) * (HARTREE / BOHR)  # (atoms, 3)
    return Result(float(energy) * HARTREE, forces, details)


def _details(mf: Any, rung: str, settings: Settings) -> Details:
    details: Details = {
        "program": settings["program"],
        "rung": rung,
        "cycles": int(mf.cycles),
        "gap": gap(mf),
    }
    if mf.mol.spin:
        details["s2"] = float(mf.spin_square()[0])
    if settings["method"] in WAVE_FUNCTIONS[1:]:
        details["energy_hf"] = float(mf.e_tot) * HARTREE
    return details


def refuse_foreign(frame: Frame, settings: Settings) -> None:
    here = f"pyscf {'.'.join(pyscf.__version__.split('.')[:2])}"
    if settings["program"] != here:
        text = f"this level belongs to {settings['program']}, {here} is installed"
        raise Refused(Failure.UNSUPPORTED, text)
    if any(frame.pbc):
        raise Refused(Failure.UNSUPPORTED, "PySCF levels are for molecules, not cells")
    if settings["density_fit"] and settings["method"] in WAVE_FUNCTIONS[1:]:
        text = NO_EXACT_GRADIENT.format(method=settings["method"].upper())
        raise Refused(Failure.UNSUPPORTED, text)


def _nothing_used() -> tuple[float, float]:
    return 0.0, 0.0
