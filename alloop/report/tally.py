"""What a live display counts, turn by turn; may start in the middle of a campaign."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from alloop.core.records import Failure
from alloop.loop import events as e
from alloop.loop.state import Entry, LoopState

KINDS = ("cheap", "expensive", "test")


@dataclass(slots=True)
class Count:
    """Labels of one kind: good ones (cached among them), failed ones by reason."""

    good: int = 0
    cached: int = 0
    failed: int = 0
    reasons: Counter[Failure] = field(default_factory=Counter)


@dataclass(slots=True)
class Tally:
    """Counts since the campaign began; reasons, cached and task seconds since the
    display did."""

    labels: dict[str, Count] = field(
        default_factory=lambda: {kind: Count() for kind in KINDS}
    )
    label_seconds: float = 0.0
    task_seconds: float = 0.0
    _begun: bool = False

    def add(self, state: LoopState, event: e.Event) -> None:
        """Take in an event and the state that it led to."""
        if self._begun:
            self._count(_newest(state, event))
        else:
            self._count(state.entries())
            self._begun = True
        self._note(state, event)

    def _count(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            count = self.labels[_kind(entry)]
            count.good += entry.good
            count.failed += not entry.good
            self.label_seconds += entry.cpu_seconds

    def _note(self, state: LoopState, event: e.Event) -> None:
        match event:
            case e.Labelled(cached=True):
                for entry in _newest(state, event):
                    self.labels[_kind(entry)].cached += 1
            case e.NotLabelled(unlabelled=unlabelled):
                for entry in _newest(state, event):
                    self.labels[_kind(entry)].reasons[unlabelled.failure] += 1
            case e.TaskLost():
                for entry in _newest(state, event):
                    self.labels[_kind(entry)].reasons[Failure.LOST] += 1
            case e.Explored() | e.Trained() | e.Prepared() | e.Sampled():
                self.task_seconds += event.timing.cpu_seconds


def _kind(entry: Entry) -> str:
    return "test" if entry.purpose == "test" else entry.fidelity


def _newest(state: LoopState, event: e.Event) -> tuple[Entry, ...]:
    """The entry that the event has just added, if it added one."""
    if not isinstance(event, e.Labelled | e.NotLabelled | e.TaskLost):
        return ()
    if isinstance(event, e.TaskLost) and not _forsaken(state, event):
        return ()
    entries = state.recent or (state.blocks[-1] if state.blocks else ())
    return entries[-1:]


def _forsaken(state: LoopState, event: e.TaskLost) -> bool:
    """Whether a label was given up because it was lost too often."""
    return event.name.startswith("label/") and event.name not in state.open
