"""Frames that a campaign is checked against or replays, from the user's files."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alloop.config.molecules import read_start_file
from alloop.config.problems import Problem
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import Ready
from alloop.config.sections.replay import ReplayedFrames, ReplayedLabels
from alloop.config.starting_data import StartingData, read_label_file
from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import FrameId
from alloop.core.records import LabelSet
from alloop.core.units import Floats
from alloop.models.settings import pretrained

if TYPE_CHECKING:
    from alloop.files.labelled_frames import LabelledFrames

_SHOWN = 3


@dataclass(slots=True)
class SuppliedSets:
    """The sets of acceptance by name, frames to replay, and problems and warnings."""

    sets: dict[str, LabelSet] = field(default_factory=dict)
    replay: LabelSet | Batch | None = None
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, text: str | None) -> None:
        """Add a problem, unless the text is None."""
        if text is not None:
            self.problems.append(Problem(path, text))


def read_supplied_sets(
    plan: Plan, folder: Path, start: StartingData, model: bytes | None
) -> SuppliedSets:
    """Read the frames of `acceptance.sets` and `training.replay`; writes nothing.

    start: the data of the campaign; model: the user's model, if there is one.
    """
    found = SuppliedSets()
    sections = {} if plan.acceptance is None else plan.acceptance.sets
    for name, section in sections.items():
        path = f"acceptance.sets.{name}"
        try:
            intake = read_label_file(folder / section.labels, section)
        except AlloopError as error:
            found.refuse(path, str(error))
            continue
        found.warnings += [f"{path}: {text}" for text in intake.warnings]
        labels = label_set(intake)
        found.sets[name] = labels
        found.refuse(path, unknown_frames(plan, labels.batch, start, model))
        found.refuse(path, _trained_frames(labels, start))
    if replays(plan):
        _add_replay(found, plan, folder, start, model)
    return found


def replays(plan: Plan) -> bool:
    """Return True if fine-tuning replays frames."""
    return plan.training is not None and plan.training.replay is not None


def read_replay(plan: Plan, folder: Path) -> tuple[LabelSet | Batch, tuple[str, ...]]:
    """Return the frames that a plan replays, and warnings about them.

    Raises InputError where they cannot be read.
    """
    section = None if plan.training is None else plan.training.replay
    if isinstance(section, ReplayedLabels):
        intake = read_label_file(folder / section.labels, section)
        return label_set(intake), intake.warnings
    assert isinstance(section, ReplayedFrames)
    return pack_frames(read_start_file(section, folder)), ()


def _add_replay(
    found: SuppliedSets,
    plan: Plan,
    folder: Path,
    start: StartingData,
    model: bytes | None,
) -> None:
    path = "training.replay"
    try:
        found.replay, warnings = read_replay(plan, folder)
    except AlloopError as error:
        found.refuse(path, str(error))
        return
    found.warnings += [f"{path}: {text}" for text in warnings]
    batch = _batch(found.replay)
    found.refuse(path, unknown_frames(plan, batch, start, model))
    replayed = {frame.id for frame in batch.frames()}
    for name, labels in found.sets.items():
        if twice := _frames_among(labels, replayed):
            text = f"frames that are replayed cannot test: {twice}; take them out"
            found.refuse(f"acceptance.sets.{name}", text)


def label_set(intake: "LabelledFrames") -> LabelSet:
    """Return the labels of a file as one set."""
    return LabelSet.of(intake.frames, intake.energies, intake.forces, intake.stress)


def unknown_frames(
    plan: Plan, batch: Batch, start: StartingData, model: bytes | None
) -> str | None:
    """Return a sentence about frames that the potential cannot treat, or None.

    A network knows the elements that it is trained on, a model that the user supplied
    its own ones too, and a universal potential all that it was made for.
    """
    if (universal := pretrained(plan.potential.kind)) is not None:
        return universal.refusal(batch)
    known = {int(z) for frame in start.start for z in frame.numbers}
    if isinstance(plan.potential, Ready) and model is not None:
        known |= _model_elements(model)
    strange = sorted(set(batch.numbers.tolist()) - known)
    if not known or not strange:
        return None
    return (
        f"expected frames of {_symbols(known)}, which the potential is trained on, got "
        f"{_symbols(strange)}; take them out"
    )


def same_labels(one: LabelSet | Batch, other: LabelSet | Batch) -> bool:
    """Return True if two sets hold the same frames in order, with equal labels."""
    return frames_digest(one) == frames_digest(other)


def _batch(frames: LabelSet | Batch) -> Batch:
    return frames if isinstance(frames, Batch) else frames.batch


def frames_digest(frames: LabelSet | Batch) -> bytes:
    """Return a hash of frames and, where they have some, of their labels."""
    digest = hashlib.sha256()
    for frame in _batch(frames).frames():
        digest.update(frame.id.encode())
    if isinstance(frames, LabelSet):
        digest.update(_bytes(frames.energies) + _bytes(frames.forces))
    return digest.digest()


def _bytes(values: Floats) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _model_elements(model: bytes) -> set[int]:
    from alloop.models.checkpoint import checkpoint_from_bytes
    from alloop.potentials.restore import inner_checkpoint

    settings = inner_checkpoint(checkpoint_from_bytes(model)).settings
    return {int(z) for z in settings.get("references") or {}}


def _trained_frames(labels: LabelSet, start: StartingData) -> str | None:
    twice = _frames_among(labels, {item.frame.id for item in start.train})
    if not twice:
        return None
    return f"frames that are trained on cannot test: {twice}; take them out"


def _frames_among(labels: LabelSet, ids: Collection[FrameId]) -> str:
    """Return the indices of the frames that are among `ids`, as text."""
    own = [frame.id for frame in labels.batch.frames()]
    return _listed([str(index) for index, key in enumerate(own) if key in ids])


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _symbols(numbers: Collection[int]) -> str:
    return ", ".join(chemical_symbol(z) for z in sorted(numbers))
