"""The bias of each generation against the labels of the validation set.

An error that is the same everywhere is seen neither by surprise nor by the spread of
energies (Wong and Yang, arXiv 2603.10159).
"""

from dataclasses import dataclass

import numpy as np

from alloop.history.examination import labels_of_test
from alloop.history.reader import History


@dataclass(frozen=True, slots=True)
class GenerationBias:
    """The mean deviations of a generation from the labels of the validation set.

    energy, energy_spread: mean and standard deviation over frames of model less label,
    eV an atom. force_scale: least-squares factor of the labels' force components in the
    model's, 1 without a bias; below it the potential is too soft.
    """

    generation: int
    frames: int
    energy: float
    energy_spread: float
    force_scale: float


def generation_biases(history: History) -> tuple[GenerationBias, ...]:
    """Return the bias of each generation that was tested, in order."""
    found = []
    for _, trained in history.generations:
        labels, test = labels_of_test(history, trained), trained.evaluation
        if labels is None or test is None:
            continue
        off = (test.energies - labels.energies) / labels.batch.sizes
        square = float(np.sum(labels.forces**2))
        scale = float(np.sum(test.forces * labels.forces)) / square if square else 1.0
        found.append(
            GenerationBias(
                trained.generation,
                len(off),
                float(off.mean()),
                float(off.std()),
                scale,
            )
        )
    return tuple(found)
