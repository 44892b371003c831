"""Errors of predictions against labels, and ASTEROID's bias against cheap ones.

The bias is of Bukharin et al., ICML 2023, section 3. The paper prints the sum over
components, its code takes the mean; only with the mean do the weights not vanish.
"""

from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch, frame_means
from alloop.core.records import LabelSet, Predictions
from alloop.core.units import Floats, Integers


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


def frame_errors(said: Predictions, labels: LabelSet) -> Floats:
    """Return the error of each labelled frame, (frames,).

    It is the mean absolute force component in eV/Å, and where no label has forces the
    absolute error of the energy in eV, less the mean error.
    """
    if not labels.has_forces:
        off = said.energies - labels.energies
        errors: Floats = np.abs(off - off.mean())
        return errors
    wrong = np.abs(said.forces - labels.forces).mean(axis=1)
    return frame_means(labels.batch, wrong)


def largest_force_errors(batch: Batch, predicted: Floats, labelled: Floats) -> Floats:
    """Return the largest force error on an atom of each frame (frames,), eV/Å.

    The error on an atom is the length of its vector.
    """
    if not len(batch):
        return np.zeros(0)
    lengths = np.linalg.norm(predicted - labelled, axis=1)  # (atoms,)
    out: Floats = np.maximum.reduceat(lengths, batch.offsets[:-1])
    return out


def frame_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """Return B = mean abs(F_model - F_cheap) of each frame, (frames,) in eV/Å.

    model and cheap are forces (atoms, 3) in eV/Å; offsets (frames + 1,). The mean over
    components is used, not the printed sum, so that molecules of different size
    compare.
    """
    frames = len(offsets) - 1
    if frames == 0:
        return np.zeros(0)
    per_atom = np.abs(model - cheap).mean(axis=1)
    out: Floats = np.add.reduceat(per_atom, offsets[:-1]) / np.diff(offsets)
    return out


def best_scale(model: Floats, cheap: Floats) -> float:
    """Return the factor a that brings a F_cheap closest to F_model in least squares.

    It is 1 where the cheap forces are all zero.
    """
    squares = float((cheap * cheap).sum())
    return float((model * cheap).sum()) / squares if squares > 0.0 else 1.0


def scaled_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """Return B after the cheap forces are scaled by `best_scale`, (frames,) in eV/Å.

    The error of a cheap level that is too stiff or too soft by the same factor
    everywhere does not count.
    """
    return frame_bias(model, best_scale(model, cheap) * cheap, offsets)
