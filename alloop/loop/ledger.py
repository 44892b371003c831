"""All frames and labels of a campaign by id: what the journal said, indexed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from alloop.core.batch import pack
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, LabelSet, Unlabelled
from alloop.loop import events as e


@dataclass(slots=True)
class Ledger:
    """Grows by `add`, turn by turn; the journal is the truth, this is its index."""

    frames: dict[FrameId, Frame] = field(default_factory=dict)
    labels: dict[tuple[LevelId, FrameId], Label | Unlabelled] = field(
        default_factory=dict
    )

    def add(self, turn: e.Turn) -> None:
        """Take in what the turn brought."""
        for frame, label in _brought(turn):
            if frame is not None:
                self.frames[frame.id] = frame
            if label is not None:
                self.labels[label.level, label.frame] = label

    def label_set(self, level: LevelId, ids: Iterable[FrameId]) -> LabelSet:
        """The labels of these frames at the level, in the order given."""
        frames = [self.frames[frame] for frame in ids]
        found = [self.labels[level, frame.id] for frame in frames]
        labels = [label for label in found if isinstance(label, Label)]
        forces = [label.forces for label in labels]
        return LabelSet(
            batch=pack(frames),
            energies=np.array([label.energy for label in labels]),
            forces=np.concatenate(forces) if forces else np.zeros((0, 3)),
        )


def _brought(turn: e.Turn) -> Iterator[tuple[Frame | None, Label | Unlabelled | None]]:
    match turn.event:
        case e.Labelled(label=label):
            yield None, label
        case e.NotLabelled(unlabelled=unlabelled):
            yield None, unlabelled
        case e.Opened(given=given):
            for item in given:
                yield item.frame, item.label
    for command in turn.commands:
        if isinstance(command, e.LabelFrame):
            yield command.frame, None
