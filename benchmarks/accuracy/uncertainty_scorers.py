"""The scorers that compete: those of campaigns, trivial ones, and some that lost.

Those that lost are no kind of `flag:`. They may use what a campaign does not have: true
errors of held-out frames, and ranks among the test frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy.special import expit
from scipy.stats import rankdata

from alloop.config.sections.flag import Flag
from alloop.core.batch import Batch, frame_means, pack_frames
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import LabelSet, Predictions
from alloop.core.roles import FittedScorer, Potential, Scorer
from alloop.core.units import Floats, Integers
from alloop.generation import Generation
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import QResidualScorer
from alloop.scores.subspace import ridge_space
from benchmarks.accuracy.labelled_pool import LabelledPool
from benchmarks.accuracy.uncertainty_models import DrawnFrames

_SKETCH = 128  # random products of gradients


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model, its pool, and the frames that were drawn for it."""

    model: Generation
    pool: LabelledPool
    drawn: DrawnFrames

    @cached_property
    def learned(self) -> Batch:
        """The frames as a campaign's scorer gets them: cheap, then expensive."""
        return self._batch(np.concatenate([self.drawn.cheap, self.drawn.expensive]))

    @cached_property
    def heldout(self) -> Batch:
        """The held-out frames."""
        return self._batch(self.drawn.heldout)

    def fit(self, scorer: Scorer, learned: Batch | None = None) -> FittedScorer:
        """Return a scorer fitted as in a campaign, or to other learned frames."""
        known = self.learned if learned is None else learned
        return scorer.fit(self.model.potential, known, self.heldout, _retrain)

    @cached_property
    def tested(self) -> Mapping[str, tuple[LabelSet, Predictions]]:
        """By name, the true labels of test frames and the model's predictions."""
        sets = {
            name: self.pool.label_set("expensive", indices)
            for name, indices in self.pool.tests.items()
        }
        return {name: (x, self.predict(x.batch)) for name, x in sets.items()}

    def predict(self, batch: Batch) -> Predictions:
        """Return predictions with descriptors."""
        return self.model.predict(batch, descriptors=True)

    def _batch(self, indices: Integers) -> Batch:
        return pack_frames([self.pool.frames[i] for i in indices])


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A scorer that is a function of a batch and its predictions, and not stored."""

    of: Callable[[Batch, Predictions], Floats]

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return what the function returns."""
        return self.of(batch, predictions)

    def arrays(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}


Fit = Callable[[TrainedModel], FittedScorer]


def _retrain(number: int, share: float = 1.0) -> Potential:
    raise NotImplementedError("only the committee needs more models here")


def shipped(**settings: Any) -> Fit:
    """Return the fit of the scorer of a `flag:` section."""
    scorer = TypeAdapter[Any](Flag).validate_python(settings).scorer()
    return lambda trained: trained.fit(scorer)


def own_committee(trained: TrainedModel) -> FittedScorer:
    """Return the committee that was trained with the model."""
    assert trained.model.scorer is not None
    return trained.model.scorer


def predicted_energy(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the predicted energy, eV."""
    return Function(lambda _, predictions: predictions.energies)


def largest_force(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the largest predicted force on an atom, eV/Å."""
    return Function(_largest_force)


def _largest_force(batch: Batch, predictions: Predictions) -> Floats:
    norms = np.linalg.norm(predictions.forces, axis=1)
    out: Floats = np.maximum.reduceat(norms, batch.offsets[:-1])
    return out


def mean_distance(trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the distance of a mean descriptor from the nearest known."""
    known = _means(trained.learned, trained.predict(trained.learned))

    def distance(batch: Batch, predictions: Predictions) -> Floats:
        apart = _means(batch, predictions)[:, None] - known
        out: Floats = np.linalg.norm(apart, axis=2).min(axis=1)
        return out

    return Function(distance)


def _means(batch: Batch, predictions: Predictions) -> Floats:
    assert predictions.descriptors is not None
    return frame_means(batch, predictions.descriptors)


def random_numbers(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by chance."""
    rng = np.random.default_rng(0)
    return Function(lambda batch, _: rng.random(len(batch)))


def expensive_leverage(trained: TrainedModel) -> FittedScorer:
    """Return the leverage of the expensively labelled frames alone."""
    frames = [trained.pool.frames[i] for i in trained.drawn.expensive]
    return trained.fit(LeverageScorer(), pack_frames(frames))


def rank_sum(trained: TrainedModel) -> FittedScorer:
    """Return the sum of the ranks by leverage and by predicted energy."""
    leverage = trained.fit(LeverageScorer())
    return Function(
        lambda batch, predictions: (
            rankdata(leverage.score(batch, predictions))
            + rankdata(predictions.energies)
        )
    )


def gradient_leverage(trained: TrainedModel) -> FittedScorer:
    """Return the leverage of the gradients of PaiNN's energy by its readout's weights.

    Those by the first matrix are outer products, sketched by random products
    (Holzmüller et al., JMLR 2023); those by the second one are the hidden layer.
    """
    tensors = trained.model.potential.checkpoint().tensors
    first, offset, second = (
        tensors[f"readout.{name}"] for name in ("0.weight", "0.bias", "2.weight")
    )
    rng = np.random.default_rng(0)
    left = rng.standard_normal((first.shape[1], _SKETCH))
    right = rng.standard_normal((first.shape[0], _SKETCH)) / np.sqrt(_SKETCH)

    def features(predictions: Predictions) -> Floats:
        x = predictions.descriptors
        assert x is not None
        inside = x @ first.T + offset
        gate = expit(inside)
        slope = (gate + inside * gate * (1.0 - gate)) * second[0]
        return np.column_stack([(x @ left) * (slope @ right), inside * gate])

    known = features(trained.predict(trained.learned))
    spaces = {
        element: ridge_space(known[trained.learned.numbers == element], 1e-4)
        for element in np.unique(trained.learned.numbers)
    }

    def score(batch: Batch, predictions: Predictions) -> Floats:
        found = features(predictions)
        raw = np.empty(len(found))
        for element, space in spaces.items():
            atoms = batch.numbers == element
            raw[atoms] = space.distance(found[atoms])
        out: Floats = np.maximum.reduceat(raw, batch.offsets[:-1])
        return out

    return Function(score)


def learned_error(trained: TrainedModel) -> FittedScorer:
    """Return a ridge regression of the log of true errors of held-out frames.

    On the logs of leverage, of T² + Q/σ², and of the largest force, and on the energy.
    """
    labels = trained.pool.label_set("expensive", trained.drawn.heldout)
    own = [trained.fit(LeverageScorer()), trained.fit(QResidualScorer(kind="ppca"))]

    def features(batch: Batch, predictions: Predictions) -> Floats:
        scores = [np.arcsinh(one.score(batch, predictions)) for one in own]
        force = np.log(_largest_force(batch, predictions) + 0.1)
        return np.column_stack([*scores, force, predictions.energies])

    predictions = trained.predict(labels.batch)
    x = features(labels.batch, predictions)
    y = np.log(largest_force_errors(labels.batch, predictions.forces, labels.forces))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x = (x - mean) / scale
    gram = x.T @ x + 0.1 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - y.mean()))
    return Function(lambda *given: (features(*given) - mean) / scale @ weights)


SCORERS: Mapping[str, Fit] = {
    "leverage": shipped(kind="leverage"),
    "q-residual": shipped(kind="q-residual"),
    "committee of 4": own_committee,
    "predicted energy": predicted_energy,
    "largest force": largest_force,
    "mean distance": mean_distance,
    "random": random_numbers,
    "leverage of SOAP": shipped(kind="leverage", descriptors="soap"),
    "q-residual of SOAP": shipped(kind="q-residual", components=5, descriptors="soap"),
    "leverage, ridge 1e-3": shipped(kind="leverage", ridge=1e-3),
    "leverage, ridge 1e-5": shipped(kind="leverage", ridge=1e-5),
    "T² + Q/σ²": lambda trained: trained.fit(QResidualScorer(kind="ppca")),
    "leverage, expensive": expensive_leverage,
    "leverage + energy": rank_sum,
    "gradients": gradient_leverage,
    "learned error": learned_error,
}
