"""Training of a generation: potential, scorer and threshold; and the errors of it.

Campaigns and `alloop train` both train here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Trainer
from alloop.core.seeds import random_stream, torch_seed
from alloop.core.species import Domain
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.potentials.storable import Storable
from alloop.scores.calibrate import surprise_threshold
from alloop.scores.qresidual import QResidual, fit_qresidual
from alloop.training.label_changes import joined_labels


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """The settings by which the scorer of a generation is fitted.

    components: principal components, as a count or a share of the variance. quantile:
    of held-out surprise, above which a frame is flagged. landmarks: number of frames
    kept, from which candidates should differ.
    """

    kind: str = "q"
    components: float | int = 0.99
    quantile: float = 0.99
    landmarks: int = 512


@dataclass(frozen=True, slots=True, eq=False)
class FittedScorer:
    """A scorer fitted to a potential, with its threshold and landmarks.

    threshold: surprise above which a frame is flagged, None where it is not calibrated;
    landmarks (frames, features): mean descriptors from which candidates should differ;
    calibrated_on: the number of frames whose surprise the threshold was taken from.
    """

    scorer: QResidual
    threshold: float | None
    landmarks: Floats
    calibrated_on: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrainingInputs:
    """All that a generation is trained from.

    data: the labels that the generation learns from. heldout: frames on which the
    scorer is calibrated. monitored: expensive labels that the trainer gets on top of
    `data`, to split them off again by the hash of their ids and monitor the training.
    name: that of the training's random stream; seed: the campaign's.
    """

    data: TrainingData
    heldout: Batch
    scoring: ScorerSettings
    seed: int
    name: str
    parent: Potential | None = None
    monitored: LabelSet | None = None

    @property
    def trainer_data(self) -> TrainingData:
        """The labels that the trainer gets."""
        if self.monitored is None:
            return self.data
        whole = joined_labels(self.data.expensive, self.monitored)
        return TrainingData(self.data.cheap, whole)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedGeneration:
    """A trained generation without facts, its fitted scorer and its history."""

    generation: Generation
    fitted: FittedScorer
    history: dict[str, Any]


def train_generation(trainer: Trainer, inputs: TrainingInputs) -> TrainedGeneration:
    """Train a potential, fit its scorer, and join both to a generation.

    Raises TypeError where the trained potential cannot be stored, and InputError where
    the labels cannot be learned from.
    """
    data = inputs.data
    potential, history = trainer.train(
        inputs.trainer_data, inputs.parent, torch_seed(inputs.seed, inputs.name)
    )
    if not isinstance(potential, Storable):
        raise TypeError("the trainer's potential has no checkpoint()")
    fitted = fit_scorer(potential, data, inputs.heldout, inputs.scoring, inputs.seed)
    domain = Domain.of(data.cheap.batch, data.expensive.batch)
    generation = Generation(potential, fitted.scorer, fitted.threshold, {}, domain)
    return TrainedGeneration(generation, fitted, history)


def fit_scorer(
    potential: Potential,
    data: TrainingData,
    heldout: Batch,
    scoring: ScorerSettings,
    seed: int,
) -> FittedScorer:
    """Fit a scorer to the training data of a potential; `heldout` sets its scale.

    Where no frames are held out, half of the training frames are used for that instead.
    """
    seen = pack_frames([*data.cheap.batch.frames(), *data.expensive.batch.frames()])
    seen, heldout = _reference_atoms(seen, heldout, seed)
    described = _descriptors(potential, seen)
    apart = _descriptors(potential, heldout)
    scorer = fit_qresidual(
        seen,
        described,
        heldout,
        apart,
        components=scoring.components,
        kind=scoring.kind,
    )
    surprise = scorer.score(heldout, potential.predict(heldout, descriptors=True))
    limit = surprise_threshold(surprise, scoring.quantile)
    landmarks = _landmark_means(seen, described, scoring)
    return FittedScorer(scorer, limit, landmarks, len(heldout))


def _reference_atoms(seen: Batch, heldout: Batch, seed: int) -> tuple[Batch, Batch]:
    if len(heldout):
        return seen, heldout
    order = random_stream(seed, "scorer").permutation(len(seen))
    half = max(1, len(seen) // 2)
    return seen.select(np.sort(order[:half])), seen.select(np.sort(order[half:]))


def _descriptors(potential: Potential, batch: Batch) -> Floats:
    described = potential.predict(batch, descriptors=True).descriptors
    if described is None:
        raise TypeError("the potential gave no descriptors")
    return described


def frame_means(batch: Batch, per_atom: Floats) -> Floats:
    """Return the mean over the atoms of each frame: (atoms, d) -> (frames, d)."""
    sums = np.add.reduceat(per_atom, batch.offsets[:-1], axis=0)
    means: Floats = sums / batch.sizes[:, None]
    return means


def _landmark_means(seen: Batch, described: Floats, scoring: ScorerSettings) -> Floats:
    means = frame_means(seen, described)
    step = max(1, -(-len(means) // scoring.landmarks))
    return means[::step]
