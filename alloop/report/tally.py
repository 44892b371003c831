"""What a live display counts; may start in the middle of a campaign."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from alloop.core.records import Failure
from alloop.loop import events as e
from alloop.loop.state import Entry, LoopState

KINDS = ("cheap", "expensive", "test")


@dataclass(slots=True)
class Count:
    """Labels of one kind: good ones (cached and doubtful among them), failed ones and
    why."""

    good: int = 0
    cached: int = 0
    doubtful: int = 0
    failed: int = 0
    reasons: Counter[Failure] = field(default_factory=Counter)


@dataclass(slots=True)
class Tally:
    """What the state does not hold: reasons, cached labels and the CPU seconds of all
    that is no label, since the display began."""

    task_seconds: float = 0.0
    _cached: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, Counter[Failure]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def add(self, state: LoopState, event: e.Event) -> None:
        """Take in an event and the state that it led to."""
        match event:
            case e.Labelled(cached=True):
                self._cached.update(_kinds(state, event.name))
            case e.NotLabelled(unlabelled=unlabelled):
                self._because(unlabelled.failure, state, event.name)
            case e.TaskLost() if event.name not in state.open:
                self._because(Failure.LOST, state, event.name)
            case (
                e.Explored() | e.Trained() | e.Prepared() | e.Sampled() | e.Rechecked()
            ):
                self.task_seconds += event.timing.cpu_seconds

    def _because(self, failure: Failure, state: LoopState, name: str) -> None:
        for kind in _kinds(state, name):
            self._reasons[kind][failure] += 1

    def labels(self, state: LoopState) -> dict[str, Count]:
        """All labels of the campaign by kind."""
        counts = {kind: Count(cached=self._cached[kind]) for kind in KINDS}
        for entry in state.entries():
            count = counts[_kind(entry)]
            count.good += entry.good
            count.doubtful += entry.good and bool(entry.doubts)
            count.failed += not entry.good
        for kind, reasons in self._reasons.items():
            counts[kind].reasons = reasons
        return counts


def _kind(entry: Entry) -> str:
    return "test" if entry.purpose == "test" else entry.fidelity


def _kinds(state: LoopState, name: str) -> Iterator[str]:
    """The kind of the label of that name, once it is entered; nothing for the rest."""
    what, *rest = name.split("/")
    if what != "label":
        return
    level, frame = rest
    newest = chain(reversed(state.recent), *map(reversed, reversed(state.blocks)))
    for entry in newest:
        if entry.frame == frame and state.levels[entry.fidelity] == level:
            yield _kind(entry)
            return
