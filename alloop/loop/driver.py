"""The impure centre: submit, wait, commit, act. Few lines, no decisions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alloop.core.batch import pack
from alloop.core.records import Failure, Label, TrainingData, Unlabelled
from alloop.loop import events as e
from alloop.loop.kit import Cargo
from alloop.loop.learning import absorb, ask
from alloop.loop.ledger import Ledger
from alloop.loop.policy import decide
from alloop.loop.pools import Loss, Outcome, Pool, Task
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState

_PASSING = (Failure.TIMEOUT, Failure.MEMORY, Failure.CRASHED, Failure.LOST)
_TICK = 0.25  # s: how soon a stop request is noticed


class Book(Protocol):
    """What the driver needs of the archive."""

    def append(self, record: e.Turn) -> int:
        """Commit a turn; its sequence number."""
        ...

    def put_model(self, model_id: str, blob: bytes) -> None:
        """Keep a model's blob for good."""
        ...

    def model(self, model_id: str) -> bytes:
        """The blob of a model."""
        ...


class Labels(Protocol):
    """A cache of labels that campaigns share."""

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """The record under this key, or None."""
        ...

    def put(self, record: Label | Unlabelled) -> None:
        """Keep the record."""
        ...


@dataclass(slots=True)
class Driver:
    """One run of a campaign: the only writer of its store.

    observe is called after every commit, with the state and the turn; `stop` asks
    whether to end early.
    """

    book: Book
    ledger: Ledger
    rules: Rules
    pool: Pool
    caches: Sequence[Labels] = ()
    observe: Callable[[LoopState, e.Turn], None] = lambda _state, _turn: None
    stop: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None
    _ready: list[e.Answer] = field(default_factory=list)

    def run(self, state: LoopState, first: e.Event | None = None) -> LoopState:
        """Go on from the state until nothing is open, or until asked to stop.

        first: what happened before anything else, such as a change of the rules.
        """
        waiting = list(state.open.values())
        if first is not None:
            state = self.turn(state, first)
        self._submit(state, waiting)
        while (state.open or self._ready) and not state.finished and not self.stop():
            event = self._next(state)
            if event is not None:
                state = self.turn(state, event)
            self.tick()
        return state

    def turn(self, state: LoopState, event: e.Event) -> LoopState:
        """Learn, decide, commit: only then does anyone act on the commands."""
        seen = absorb(state, event)
        commands = decide(seen, event, self.rules)
        turn = e.Turn(event, commands)
        self.book.append(turn)
        self.ledger.add(turn)
        state = ask(seen, commands)
        self._remember(event)
        self.observe(state, turn)
        self._submit(state, commands)
        return state

    def _next(self, state: LoopState) -> e.Event | None:
        if self._ready:
            return self._ready.pop(0)
        outcome = self.pool.next(_TICK)
        return None if outcome is None else self._event(state, outcome)

    def _event(self, state: LoopState, outcome: Outcome) -> e.Event | None:
        if isinstance(outcome, Loss):
            task = outcome.task
            return e.TaskLost(task.command.name, task.attempt, outcome.reason)
        event = outcome.event
        if event.name not in state.open:
            return None
        if outcome.blob is not None and isinstance(event, e.Trained):
            self.book.put_model(event.model, outcome.blob)
        return event

    def _submit(self, state: LoopState, commands: Iterable[e.Command]) -> None:
        for command in commands:
            if isinstance(command, e.Stop):
                continue
            known = self._known(command)
            if known is None:
                attempt = state.attempts.get(command.name, 0) + 1
                self.pool.submit(Task(command, attempt, self._cargo(state, command)))
            else:
                self._ready.append(known)

    def _known(self, command: e.Command) -> e.Answer | None:
        """The answer to a label command that somebody has paid for already."""
        if not isinstance(command, e.LabelFrame):
            return None
        key = (command.level, command.frame.id)
        record = self.ledger.labels.get(key)
        for cache in self.caches:
            record = cache.get(*key) if record is None else record
        match record:
            case Label():
                return e.Labelled(command.name, record, cached=True)
            case Unlabelled():
                return e.NotLabelled(command.name, record)
            case None:
                return None

    def _cargo(self, state: LoopState, command: e.Command) -> Cargo:
        match command:
            case e.Explore():
                return Cargo(model=self.book.model(command.model))
            case e.Train():
                return self._lessons(state, command)
            case _:
                return Cargo()

    def _lessons(self, state: LoopState, command: e.Train) -> Cargo:
        expensive = state.levels["expensive"]
        cheap = state.levels.get("cheap", expensive)  # one fidelity: no cheap ids
        sets = self.ledger.label_set
        return Cargo(
            model=None if command.parent is None else self.book.model(command.parent),
            data=TrainingData(
                cheap=sets(cheap, command.cheap),
                expensive=sets(expensive, command.expensive),
            ),
            test=sets(expensive, command.test),
            heldout=pack([self.ledger.frames[frame] for frame in command.heldout]),
        )

    def _remember(self, event: e.Event) -> None:
        match event:
            case e.Labelled(label=label, cached=False):
                record: Label | Unlabelled = label
            case e.NotLabelled(unlabelled=unlabelled) if lasting(unlabelled):
                record = unlabelled
            case _:
                return
        for cache in self.caches:
            cache.put(record)


def lasting(unlabelled: Unlabelled) -> bool:
    """Whether another machine or another try would fail just so."""
    return unlabelled.failure not in _PASSING
