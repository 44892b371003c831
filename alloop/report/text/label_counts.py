"""Counts for the live display, which may start in the middle of a campaign."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.records import Failure
from alloop.core.units import Floats
from alloop.loop import events as e
from alloop.loop.state import LabelState, LoopState
from alloop.report.analysis.summary_facts import KINDS, label_kind


@dataclass(slots=True)
class LabelCount:
    """Labels of one kind.

    good: includes cached and doubtful labels; reasons: failures by cause.
    """

    good: int = 0
    cached: int = 0
    doubtful: int = 0
    failed: int = 0
    reasons: Counter[Failure] = field(default_factory=Counter)


@dataclass(slots=True)
class LabelCounter:
    """Counts since the display began that the loop state does not hold.

    They are reasons of failures, cached labels, and the CPU seconds of all tasks other
    than labels. examined: force errors of the last examination by frame, as its labels
    come, eV/Å.
    """

    task_seconds: float = 0.0
    examined: dict[FrameId, float] = field(default_factory=dict)
    _predicted: dict[FrameId, Floats] = field(default_factory=dict)
    _cached: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, Counter[Failure]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def add_event(self, state: LoopState, event: e.Event) -> None:
        """Count an event; state: the one after the event."""
        self._examine(event)
        match event:
            case e.Labelled(cached=True):
                self._cached.update(_entered_kind(state, event.name))
            case e.NotLabelled(unlabelled=unlabelled):
                self._because(unlabelled.failure, state, event.name)
            case e.TaskLost() if event.name not in state.open:
                self._because(Failure.LOST, state, event.name)
            case (
                e.Explored()
                | e.Trained()
                | e.Prepared()
                | e.Sampled()
                | e.Rechecked()
                | e.Examined()
            ):
                self.task_seconds += event.timing.cpu_seconds

    def _examine(self, event: e.Event) -> None:
        match event:
            case e.Examined(frames=frames):
                if event.name.endswith("/0/0"):  # a new examination begins
                    self.examined, self._predicted = {}, {}
                self._predicted |= {x.frame.id: x.forces for x in frames}
            case e.Labelled(label=label) if label.frame in self._predicted:
                apart = np.abs(self._predicted[label.frame] - label.forces)
                self.examined[label.frame] = float(apart.mean())

    def _because(self, failure: Failure, state: LoopState, name: str) -> None:
        for kind in _entered_kind(state, name):
            self._reasons[kind][failure] += 1

    def labels(self, state: LoopState) -> dict[str, LabelCount]:
        """Return all labels of the campaign by kind."""
        counts = {kind: LabelCount(cached=self._cached[kind]) for kind in KINDS}
        for entry in state.entries():
            count = counts[_label_kind(entry)]
            count.good += entry.good
            count.doubtful += entry.good and bool(entry.doubts)
            count.failed += not entry.good
        for kind, reasons in self._reasons.items():
            counts[kind].reasons = reasons
        return counts


def _label_kind(entry: LabelState) -> str:
    return label_kind(entry.purpose, entry.fidelity, entry.brought)


def _entered_kind(state: LoopState, name: str) -> Iterator[str]:
    """Yield the kind of the label of that name if the state has it."""
    what, *rest = name.split("/")
    if what != "label":
        return
    level, frame = rest
    newest = chain(reversed(state.recent), *map(reversed, reversed(state.blocks)))
    for entry in newest:
        if entry.frame == frame and state.levels[entry.fidelity] == level:
            yield _label_kind(entry)
            return
