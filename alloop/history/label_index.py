"""An index of all frames and labels of a campaign by id."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from alloop.core.frame import Frame, FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, LabelSet, Unlabelled
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame


@dataclass(slots=True)
class LabelIndex:
    """An index of the journal's frames and labels, built turn by turn with `add_turn`.

    computed: keys of the labels that this campaign computed itself, not those from a
    cache or the user.
    """

    frames: dict[FrameId, Frame] = field(default_factory=dict)
    labels: dict[tuple[LevelId, FrameId], Label | Unlabelled] = field(
        default_factory=dict
    )
    computed: set[tuple[LevelId, FrameId]] = field(default_factory=set)

    def add_turn(self, turn: e.Turn) -> None:
        """Add the frames and labels of a turn."""
        for frame, label in _turn_labels(turn):
            if frame is not None:
                self.frames.setdefault(frame.id, frame)
            if label is not None:
                self.labels[label.level, label.frame] = _detached_label(label)
        if isinstance(turn.event, e.Labelled) and not turn.event.cached:
            self.computed.add((turn.event.label.level, turn.event.label.frame))

    def get(self, level: LevelId, frame: FrameId) -> Label | Unlabelled | None:
        """Return the label or the failure under this key, None without either."""
        return self.labels.get((level, frame))

    def label_set(self, level: LevelId, ids: Iterable[FrameId]) -> LabelSet:
        """Return the labels of these frames at the level, in the order given."""
        frames = [self.frames[frame] for frame in ids]
        answers = [self.labels[level, frame.id] for frame in frames]
        labels = [label for label in answers if isinstance(label, Label)]
        return LabelSet.of(
            frames,
            [x.energy for x in labels],
            [x.forces for x in labels],
            [x.stress for x in labels],
        )


def _detached_label(label: Label | Unlabelled) -> Label | Unlabelled:
    """Copy the arrays of a label, so that its record can be freed."""
    if isinstance(label, Unlabelled) or label.forces.base is None:
        return label
    stress = None if label.stress is None else label.stress.copy()
    return replace(label, forces=label.forces.copy(), stress=stress)


def _turn_labels(
    turn: e.Turn,
) -> Iterator[tuple[Frame | None, Label | Unlabelled | None]]:
    match turn.event:
        case e.Labelled(label=label):
            yield None, label
        case e.NotLabelled(unlabelled=unlabelled):
            yield None, unlabelled
        case e.Opened(given=given):
            for item in given:
                yield item.frame, item.label
        case e.Restored(asked=LabelFrame(frame=frame), answer=e.Labelled(label=label)):
            yield frame, label
    yield from ((x.frame, None) for x in turn.commands if isinstance(x, LabelFrame))
