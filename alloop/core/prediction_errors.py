"""Errors of predictions against labels."""

from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import LabelSet, Predictions
from alloop.core.units import Floats


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """The errors against labels: energies in eV a frame, force components in eV/Å.

    energy_spread: mean absolute error of the energies after their mean error is
    subtracted, the part that matters for dynamics of one molecule. Errors of forces are
    those of frames whose label has some, NaN where none has.
    """

    frames: int
    energy_mae: float
    energy_rmse: float
    energy_spread: float
    force_mae: float
    force_rmse: float


def prediction_errors(said: Predictions, labels: LabelSet) -> ErrorSummary:
    """Return the errors of predictions of labelled frames, at least one."""
    labelled = np.isfinite(labels.forces)  # NaN: a label with an energy alone
    forces = (
        (said.forces - labels.forces)[labelled]
        if labelled.any()
        else np.full(1, np.nan)
    )
    energies = said.energies - labels.energies
    return ErrorSummary(
        frames=len(labels),
        energy_mae=float(np.abs(energies).mean()),
        energy_rmse=float(np.sqrt((energies**2).mean())),
        energy_spread=float(np.abs(energies - energies.mean()).mean()),
        force_mae=float(np.abs(forces).mean()),
        force_rmse=float(np.sqrt((forces**2).mean())),
    )


def largest_force_errors(batch: Batch, predicted: Floats, labelled: Floats) -> Floats:
    """Return the largest force error on an atom of each frame (frames,), eV/Å.

    The error on an atom is the length of its vector.
    """
    if not len(batch):
        return np.zeros(0)
    lengths = np.linalg.norm(predicted - labelled, axis=1)  # (atoms,)
    out: Floats = np.maximum.reduceat(lengths, batch.offsets[:-1])
    return out
