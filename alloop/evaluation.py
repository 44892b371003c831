"""Training of a generation: potential, scorer and threshold; and the errors of it.

Campaigns and `alloop train` both train here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.batch import Batch, evenly_thinned, frame_means, pack_frames
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import (
    FittedScorer,
    MemberScorer,
    Potential,
    Retrain,
    Scorer,
    Trainer,
)
from alloop.core.seeds import random_stream, torch_seed
from alloop.core.species import Domain
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.models.checkpoint import (
    Checkpoint,
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.potentials.restore import restore_potential
from alloop.scores.calibrate import ScorerSettings, surprise_threshold
from alloop.scores.error_limits import fit_error_limits
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.state_folder import ResumableTrainer, StateFolder


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedScorer:
    """A scorer fitted to a potential, with its threshold and landmarks.

    threshold: surprise above which a frame is flagged, None where it is not calibrated;
    landmarks (frames, features): mean descriptors from which candidates should differ;
    calibrated_on: the number of frames that the threshold was taken from; source: what
    these are, "heldout" or "validation", or "error" where it is an error's surprise.
    """

    scorer: FittedScorer
    threshold: float | None
    landmarks: Floats
    calibrated_on: int = 0
    source: str = "heldout"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingInputs:
    """All that a generation is trained from, and where its training may be kept.

    data: the labels that the generation learns from. heldout: frames on which the
    scorer is calibrated. monitored: expensive labels that the trainer gets on top of
    `data`, to split them off again by the hash of their ids and monitor the training.
    name: that of the training's random stream; seed: the campaign's. folder: for the
    states of a training that can be resumed after a kill. replayed: frames that the
    trainer replays, which are in the model's domain too.
    """

    data: TrainingData
    heldout: Batch
    scoring: ScorerSettings
    seed: int
    name: str
    parent: Potential | None = None
    monitored: LabelSet | None = None
    folder: Path | None = None
    replayed: LabelSet | Batch | None = None

    @property
    def learned_batches(self) -> tuple[Batch, ...]:
        """The frames of all labels, and those that are replayed."""
        batches = (self.data.cheap.batch, self.data.expensive.batch)
        if self.replayed is None:
            return batches
        old = self.replayed
        return (*batches, old if isinstance(old, Batch) else old.batch)

    def trainer_data(self, data: TrainingData) -> TrainingData:
        """Return the labels that the trainer gets, to learn from `data`."""
        if self.monitored is None:
            return data
        joined = joined_labels(data.expensive, self.monitored)
        return TrainingData(data.cheap, joined)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedGeneration:
    """A trained generation without facts, its fitted scorer and its history."""

    generation: Generation
    fitted: CalibratedScorer
    history: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedMember:
    """A potential that was trained for a generation, with the training's history.

    number: 0 for the generation's own, otherwise that of the scorer's training;
    checkpoint: the potential's, as bytes.
    """

    number: int
    checkpoint: bytes
    history: dict[str, Any]


def member_numbers(scorer: Scorer) -> tuple[int, ...]:
    """Return the numbers of the trainings that can run side by side, 0 first.

    There are none where the scorer does not tell what it will ask for.
    """
    retrained = scorer.retrained if isinstance(scorer, MemberScorer) else {}
    return (0, *sorted(retrained)) if retrained else ()


def train_member(
    trainer: Trainer, inputs: TrainingInputs, number: int
) -> TrainedMember:
    """Train one of `member_numbers`, for a later `train_generation`."""
    scorer = inputs.scoring.scorer
    if number == 0:
        trained = _train_potential(trainer, inputs, inputs.data, inputs.name)
    else:
        assert isinstance(scorer, MemberScorer)
        trained = _retrain(trainer, inputs, number, scorer.retrained[number])
    potential, history = trained
    return TrainedMember(number, checkpoint_to_bytes(potential.checkpoint()), history)


def train_generation(
    trainer: Trainer,
    inputs: TrainingInputs,
    members: Sequence[TrainedMember] = (),
    restore: Callable[[Checkpoint], Storable] = restore_potential,
) -> TrainedGeneration:
    """Train a potential, fit its scorer, and join both to a generation.

    members: those of `member_numbers`, where they were trained before; restore: the
    function that restores their potentials. Raises TypeError where the trained
    potential cannot be stored, and InputError where the labels cannot be learned from.
    """
    data, finished = inputs.data, {member.number: member for member in members}

    def retrain(number: int, share: float = 1.0) -> Potential:
        if number in finished:
            return restore(checkpoint_from_bytes(finished[number].checkpoint))
        return _retrain(trainer, inputs, number, share)[0]

    if 0 in finished:
        potential = restore(checkpoint_from_bytes(finished[0].checkpoint))
        history = finished[0].history
    else:
        potential, history = _train_potential(trainer, inputs, data, inputs.name)
    fitted = fit_scorer(potential, inputs, retrain)
    domain = Domain.of(*inputs.learned_batches)
    generation = Generation(potential, fitted.scorer, fitted.threshold, {}, domain)
    return TrainedGeneration(generation, fitted, history)


def _retrain(
    trainer: Trainer, inputs: TrainingInputs, number: int, share: float
) -> tuple[Storable, dict[str, Any]]:
    """Train on a random share of the labels, on random streams of its own."""
    name = f"{inputs.name}/member/{number}"
    part = _random_part(inputs.data, share, random_stream(inputs.seed, name))
    return _train_potential(trainer, inputs, part, name)


def _train_potential(
    trainer: Trainer, inputs: TrainingInputs, data: TrainingData, name: str
) -> tuple[Storable, dict[str, Any]]:
    """Train on `data`; name: of the random stream, and of the folder of its states."""
    if inputs.folder is not None and isinstance(trainer, ResumableTrainer):
        inside = name.removeprefix(inputs.name).strip("/").replace("/", "-")
        trainer = trainer.saving_to(StateFolder(inputs.folder / inside))
    potential, history = trainer.train(
        inputs.trainer_data(data), inputs.parent, torch_seed(inputs.seed, name)
    )
    if not isinstance(potential, Storable):
        raise TypeError("the trainer's potential has no checkpoint()")
    return potential, history


def _random_part(
    data: TrainingData, share: float, rng: np.random.Generator
) -> TrainingData:
    """Return the labels of a random share of the frames, at least one of each formula.

    A frame with labels at both levels is in both sets or in none.
    """
    groups: dict[tuple[bool, bytes], list[str]] = {}
    for labels, is_expensive in ((data.expensive, True), (data.cheap, False)):
        for frame in labels.batch.frames():
            formula = np.sort(frame.numbers).tobytes()
            groups.setdefault((is_expensive, formula), []).append(frame.id)
    chosen: set[str] = set()
    seen: set[str] = set()
    for key in sorted(groups, reverse=True):  # expensive ones first
        fresh = sorted(set(groups[key]) - seen)
        seen |= set(fresh)
        chosen |= set(rng.permutation(fresh)[: ceil(share * len(fresh))].tolist())
    return TrainingData(_only(data.cheap, chosen), _only(data.expensive, chosen))


def _only(labels: LabelSet, ids: set[str]) -> LabelSet:
    inside = [frame.id in ids for frame in labels.batch.frames()]
    return select_labels(labels, np.flatnonzero(inside))


def fit_scorer(
    potential: Potential, inputs: TrainingInputs, retrain: Retrain
) -> CalibratedScorer:
    """Fit a scorer to a potential and its frames; held-out ones set its threshold.

    Where no frames are held out, half of the training frames are used for that instead.
    """
    data, scoring = inputs.data, inputs.scoring
    seen = pack_frames([*data.cheap.batch.frames(), *data.expensive.batch.frames()])
    seen, heldout = _reference_atoms(seen, inputs.heldout, inputs.seed)
    scorer = scoring.scorer.fit(potential, seen, heldout, retrain)
    surprise = scorer.score(heldout, potential.predict(heldout, descriptors=True))
    _refuse_unfit_surprise(surprise, heldout, scoring.scorer)
    limit = surprise_threshold(surprise, scoring.quantile)
    landmarks = _landmark_means(potential, seen, scoring.landmarks)
    return CalibratedScorer(scorer, limit, landmarks, len(heldout))


def _refuse_unfit_surprise(surprise: Floats, heldout: Batch, scorer: Scorer) -> None:
    """Raise InputError unless a scorer gave one number for each held-out frame."""
    shape, undefined = np.shape(surprise), int(np.isnan(surprise).sum())
    if shape == (len(heldout),) and not undefined:
        return
    wrong = f"NaN for {undefined} of" if undefined else f"an array {shape} for"
    raise InputError(
        f"expected one number as the surprise of each frame, {type(scorer).__name__} "
        f"gave {wrong} {len(heldout)} held-out frames; mend the scorer"
    )


def calibrate(
    trained: TrainedGeneration,
    surprise: Floats,
    errors: Floats,
    scoring: ScorerSettings,
    ratios: Sequence[float] = (),
    batch: Batch | None = None,
) -> TrainedGeneration:
    """Return the generation with limits of its errors, and a threshold that fits them.

    surprise, errors (frames,), in eV/Å: of labelled frames that it was not trained on,
    best of MD. The threshold is taken from these where they suffice, or where the
    settings flag by an error, it is the surprise at which the limit reaches that.
    ratios: of control frames, and batch: the frames; see `fit_error_limits`.
    """
    limits = fit_error_limits(surprise, errors, scoring.coverage, ratios, batch)
    fitted, finite = trained.fitted, surprise[np.isfinite(surprise)]
    threshold = surprise_threshold(finite, scoring.quantile)
    if limits is not None and scoring.error is not None:
        at = limits.surprise_at(scoring.error)
        fitted = replace(fitted, threshold=at, source="error")
    elif threshold is not None:
        fitted = replace(fitted, threshold=threshold, source="validation")
    if fitted.source != "heldout":
        fitted = replace(fitted, calibrated_on=len(finite))
    generation = replace(
        trained.generation, threshold=fitted.threshold, error_limits=limits
    )
    return replace(trained, generation=generation, fitted=fitted)


def _reference_atoms(seen: Batch, heldout: Batch, seed: int) -> tuple[Batch, Batch]:
    if len(heldout):
        return seen, heldout
    order = random_stream(seed, "scorer").permutation(len(seen))
    half = max(1, len(seen) // 2)
    return seen.select(np.sort(order[:half])), seen.select(np.sort(order[half:]))


def _landmark_means(potential: Potential, seen: Batch, limit: int) -> Floats:
    """Return mean descriptors (frames, features); (0, 0) if the potential has none."""
    described = potential.predict(seen, descriptors=True).descriptors
    if described is None:
        return np.zeros((0, 0))
    means = frame_means(seen, described)
    return means[evenly_thinned(len(means), limit)]
