"""Labels of one level made to resemble another's, and sets of both: pure functions.

Energies are those without their level's references, so that a factor means the same for
energies and forces, and a sum of labels is the label of a sum.
"""

from dataclasses import replace

import numpy as np

from alloop.core.batch import pack_frames, take_atoms
from alloop.core.records import LabelSet, Predictions
from alloop.core.units import Floats, Integers


def scaled_labels(labels: LabelSet, factor: float) -> LabelSet:
    """Energies and forces times a factor."""
    return replace(
        labels, energies=factor * labels.energies, forces=factor * labels.forces
    )


def add_predictions(labels: LabelSet, said: Predictions, sign: float = 1.0) -> LabelSet:
    """The labels plus (or minus, with sign -1) what a potential says of them."""
    return replace(
        labels,
        energies=labels.energies + sign * said.energies,
        forces=labels.forces + sign * said.forces,
    )


def joined_labels(*parts: LabelSet) -> LabelSet:
    """Label sets one after the other."""
    return LabelSet(
        pack_frames([frame for part in parts for frame in part.batch.frames()]),
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
    )


def expensive_repeats(cheap: int, expensive: int, mix: float) -> int:
    """How often each expensive frame must stand among the cheap ones, so that a share
    `mix` of all is expensive; at least once."""
    if expensive == 0:
        return 0
    return max(1, round(mix / (1.0 - mix) * cheap / expensive))


def select_labels(labels: LabelSet, frames: Integers) -> LabelSet:
    """The labels of some frames, in that order; a frame may come often."""
    atoms = take_atoms(labels.batch.offsets, frames)
    return LabelSet(
        labels.batch.select(frames), labels.energies[frames], labels.forces[atoms]
    )


def mixed_labels(
    cheap: LabelSet, expensive: LabelSet, mix: float, weights: Floats | None = None
) -> tuple[LabelSet, Floats]:
    """Cheap and repeated expensive labels with their weights (frames,) of mean 1.

    weights are those of the cheap frames (cheap frames,), uniform where there are none.
    """
    times = expensive_repeats(len(cheap), len(expensive), mix)
    often = select_labels(expensive, np.tile(np.arange(len(expensive)), times))
    first = np.ones(len(cheap)) if weights is None else weights
    whole = np.concatenate([first, np.ones(len(often))])
    return joined_labels(cheap, often), whole / whole.mean()
