"""Pure functions that adapt one level's labels to another's, and join both.

Energies are without their level's references, so that a factor means the same for
energies and forces, and a sum of labels is the label of a sum.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alloop.core.batch import pack_frames, take_atoms
from alloop.core.records import LabelSet, Predictions
from alloop.core.stress import stack_stress
from alloop.core.units import Floats, Integers


def scaled_labels(labels: LabelSet, factor: float) -> LabelSet:
    """Return the labels with energies, forces and stress multiplied by a factor."""
    return replace(
        labels,
        energies=factor * labels.energies,
        forces=factor * labels.forces,
        stress=None if labels.stress is None else factor * labels.stress,
    )


def add_predictions(
    labels: LabelSet, predictions: Predictions, sign: float = 1.0
) -> LabelSet:
    """Return the labels plus `sign` times a potential's predictions for them.

    The stress is left out where the potential gives none.
    """
    stress = None
    if labels.stress is not None and predictions.stress is not None:
        stress = labels.stress + sign * predictions.stress
    return replace(
        labels,
        energies=labels.energies + sign * predictions.energies,
        forces=labels.forces + sign * predictions.forces,
        stress=stress,
    )


def joined_labels(*parts: LabelSet) -> LabelSet:
    """Return the label sets joined, one after the other."""
    return LabelSet(
        pack_frames([frame for part in parts for frame in part.batch.frames()]),
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
        stack_stress([row for part in parts for row in _stress_rows(part)]),
    )


def expensive_repeats(cheap: int, expensive: int, mix: float) -> int:
    """Return the number of times each expensive frame stands among the cheap ones.

    A share of about `mix` of all frames is then expensive. It is at least 1, and 0
    without expensive frames.
    """
    if expensive == 0:
        return 0
    return max(1, round(mix / (1.0 - mix) * cheap / expensive))


def select_labels(labels: LabelSet, frames: Integers) -> LabelSet:
    """Return the labels of some frames, in that order; frames may be repeated."""
    atoms = take_atoms(labels.batch.offsets, frames)
    return LabelSet(
        labels.batch.select(frames),
        labels.energies[frames],
        labels.forces[atoms],
        None if labels.stress is None else labels.stress[frames],
    )


def mixed_labels(
    cheap: LabelSet, expensive: LabelSet, mix: float, weights: Floats | None = None
) -> tuple[LabelSet, Floats]:
    """Return cheap and repeated expensive labels with weights (frames,) of mean 1.

    weights are those of the cheap frames (cheap frames,), uniform where it is None.
    """
    times = expensive_repeats(len(cheap), len(expensive), mix)
    often = select_labels(expensive, np.tile(np.arange(len(expensive)), times))
    first = np.ones(len(cheap)) if weights is None else weights
    whole = np.concatenate([first, np.ones(len(often))])
    return joined_labels(cheap, often), whole / whole.mean()


def _stress_rows(labels: LabelSet) -> Sequence[Floats | None]:
    return [None] * len(labels) if labels.stress is None else list(labels.stress)
