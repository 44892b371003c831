"""The arms of `selection.active`: ways to spend a campaign's money."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import Predictions
from alloop.core.units import Floats, Integers
from alloop.generation import Generation
from benchmarks.accuracy.labelled_pool import LabelledPool

Worth = Callable[[Generation, LabelledPool, Integers, Predictions, Floats], Floats]


def surprise_worth(
    _generation: Generation,
    _pool: LabelledPool,
    _indices: Integers,
    _predictions: Predictions,
    surprise: Floats,
) -> Floats:
    """Return the surprise itself, as in a campaign."""
    return surprise


def true_error(
    _generation: Generation,
    pool: LabelledPool,
    indices: Integers,
    predictions: Predictions,
    _surprise: Floats,
) -> Floats:
    """Return each frame's largest true force error at the expensive level, eV/Å."""
    labels = pool.label_set("expensive", indices)
    return largest_force_errors(labels.batch, predictions.forces, labels.forces)


def predicted_energy(
    _generation: Generation,
    _pool: LabelledPool,
    _indices: Integers,
    predictions: Predictions,
    _surprise: Floats,
) -> Floats:
    """Return the predicted energy, eV, a trivial scorer for one molecule."""
    return predictions.energies


def no_worth(
    _generation: Generation,
    _pool: LabelledPool,
    indices: Integers,
    _predictions: Predictions,
    _surprise: Floats,
) -> Floats:
    """Return zeros: frames that only their distances tell apart."""
    return np.zeros(len(indices))


def drawn_surprise(
    _generation: Generation,
    _pool: LabelledPool,
    indices: Integers,
    _predictions: Predictions,
    surprise: Floats,
) -> Floats:
    """Return surprise times exponentiated Gumbel noise.

    The largest ones are then a draw without replacement, with probabilities
    proportional to surprise (Saleh et al., J. Chem. Phys. 155, 144109, 2021).
    """
    rng = np.random.default_rng(indices)
    return surprise * np.exp(rng.gumbel(size=len(indices)))


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to spend the money.

    changes: to the campaign file. worth: the score of exploration's candidates, in
    place of surprise. cheap: number of cheap labels, as a multiple of the usual one.
    plain: whether candidates are frames of MD at ordinary temperatures alone. whole:
    whether all candidates go on to the selector, not the best alone. twin: training
    steps of a second network on the cheap labels of the expensively labelled frames;
    its error against a candidate's cheap label is then the candidate's bias, which is
    the learning error at the cheap level (LFaB, arXiv 2508.15577), for forces.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    worth: Worth = surprise_worth
    cheap: float = 1.0
    plain: bool = False
    whole: bool = False
    twin: int = 0


FARTHEST = {"flag": {"selection": {"kind": "surprise", "balance": 1.0}}}
ARMS: Mapping[str, Arm] = {
    "campaign": Arm(),
    "random": Arm({"flag": {"selection": "random"}}),
    "oracle": Arm({"flag": {"triage": "surprise"}}, true_error),
    "q-residual": Arm({"flag": {"kind": "q-residual"}}),
    "surprise": Arm({"flag": {"triage": "surprise"}}),
    "bias": Arm({"flag": {"triage": "bias"}}),
    "learning-error": Arm({"flag": {"triage": "bias"}}, twin=400),
    "no-control": Arm({"flag": {"control": 0.0}}),
    "more-control": Arm({"flag": {"control": 0.3}}),
    "half-control": Arm({"flag": {"control": 0.5}}),
    "stochastic": Arm({"flag": {"triage": "surprise"}}, drawn_surprise),
    "energy": Arm({"flag": {"triage": "surprise"}}, predicted_energy),
    "farthest": Arm(FARTHEST, no_worth, whole=True),
    "clusters": Arm({"flag": {"selection": "clusters"}}),
    "pooled": Arm({"flag": {"selection": {"kind": "surprise", "molecules": "pooled"}}}),
    "plain-md": Arm({"flag": {"selection": "random"}}, plain=True),
    "half-cheap": Arm(cheap=0.5),
    "double-cheap": Arm(cheap=2.0),
    "measured": Arm({"budget": {"split": "measured"}}),
    "expensive": Arm(cheap=0.0),
    "tensor-painn": Arm({"potential": {"kind": "tensor-painn"}}),
}
