"""Labelled frames that a campaign is checked against, read from the user's files."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alloop.config.problems import Problem
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import Ready
from alloop.config.starting_data import StartingData, read_label_file
from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch
from alloop.core.errors import AlloopError
from alloop.core.records import LabelSet
from alloop.core.units import Floats
from alloop.models.settings import pretrained

if TYPE_CHECKING:
    from alloop.files.labelled_frames import LabelledFrames

_SHOWN = 3


@dataclass(slots=True)
class BroughtSets:
    """The sets of acceptance by name, and problems and warnings on the way."""

    sets: dict[str, LabelSet] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, text: str | None) -> None:
        """Add a problem, unless the text is None."""
        if text is not None:
            self.problems.append(Problem(path, text))


def read_brought_sets(
    plan: Plan, folder: Path, start: StartingData, model: bytes | None
) -> BroughtSets:
    """Read the labelled frames that `acceptance.sets` names; nothing is written.

    start: the data of the campaign; model: the user's model, if there is one.
    """
    found = BroughtSets()
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
    return found


def label_set(intake: "LabelledFrames") -> LabelSet:
    """Return the labels of a file as one set."""
    return LabelSet.of(intake.frames, intake.energies, intake.forces, intake.stress)


def unknown_frames(
    plan: Plan, batch: Batch, start: StartingData, model: bytes | None
) -> str | None:
    """Return a sentence about frames that the potential cannot treat, or None.

    A network knows the elements that it is trained on, a model that the user brought
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


def same_labels(one: LabelSet, other: LabelSet) -> bool:
    """Return True if two sets hold the same frames in order, with equal labels."""
    return _content(one) == _content(other)


def _content(labels: LabelSet) -> tuple[tuple[str, ...], bytes, bytes]:
    ids = tuple(frame.id for frame in labels.batch.frames())
    return ids, _bytes(labels.energies), _bytes(labels.forces)


def _bytes(values: Floats) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _model_elements(model: bytes) -> set[int]:
    from alloop.models.checkpoint import checkpoint_from_bytes
    from alloop.potentials.restore import inner_checkpoint

    settings = inner_checkpoint(checkpoint_from_bytes(model)).settings
    return {int(z) for z in settings.get("references") or {}}


def _trained_frames(labels: LabelSet, start: StartingData) -> str | None:
    trained = {item.frame.id for item in start.train}
    ids = [frame.id for frame in labels.batch.frames()]
    twice = [str(index) for index, key in enumerate(ids) if key in trained]
    if not twice:
        return None
    return f"frames that are trained on cannot test: {_listed(twice)}; take them out"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _symbols(numbers: Collection[int]) -> str:
    return ", ".join(chemical_symbol(z) for z in sorted(numbers))
