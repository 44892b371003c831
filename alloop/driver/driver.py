"""The driver of the loop: submits commands, waits, commits events. No decisions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alloop.core.batch import pack_frames
from alloop.core.levels import Level
from alloop.core.records import Label, TrainingData, Unlabelled
from alloop.history.label_index import LabelIndex
from alloop.loop import events as e
from alloop.loop.policy import Policy, decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.workers.pools import LateTask, LostTask, Outcome, Pool, Task
from alloop.workers.settings import TaskData
from alloop.workers.spool import Spool
from alloop.workers.task_times import TaskTimes, expected_cost, label_costs
from alloop.workers.time_limits import TimeLimit

_TICK = 0.25  # s between two checks for a stop request


class TurnLog(Protocol):
    """The part of an archive that the driver uses."""

    def append(self, record: e.Turn) -> int:
        """Commit a turn; return its sequence number."""
        ...

    def put_model(self, model_id: str, blob: bytes) -> None:
        """Store the blob of a model."""
        ...

    def model(self, model_id: str) -> bytes:
        """Return the blob of a model."""
        ...


class LabelStore(Protocol):
    """A cache of labels that campaigns share."""

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record under this key, or None."""
        ...

    def put(self, record: Label | Unlabelled) -> None:
        """Store the record."""
        ...


@dataclass(slots=True)
class Driver:
    """The driver of one run of a campaign, the only writer of its store.

    book: the archive. policy: decides what follows from an event. levels: by fidelity,
    to estimate the costs of labels. observe: called with the state and the turn after
    every commit. stop: returns True to end early. tick: called after every wait. due:
    the time limit of the run. times: expected durations of tasks. spool: labels that
    workers left behind. answers: gives answers that a repair of the store kept.
    """

    book: TurnLog
    ledger: LabelIndex
    rules: Rules
    pool: Pool
    policy: Policy = decide
    levels: Mapping[str, Level] = field(default_factory=dict)
    caches: Sequence[LabelStore] = ()
    observe: Callable[[LoopState, e.Turn], None] = lambda _state, _turn: None
    stop: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None
    due: TimeLimit | None = None
    times: TaskTimes = field(default_factory=TaskTimes)
    spool: Spool | None = None
    answers: Callable[[e.Command], e.Answer | e.TaskLost | None] = lambda _command: None
    _held: set[str] = field(default_factory=set)
    _ready: list[e.Answer | e.TaskLost] = field(default_factory=list)

    def run(self, state: LoopState, first: Iterable[e.Event] = ()) -> LoopState:
        """Continue from the state until nothing is open, or a stop is requested.

        first: events to apply before anything else, such as a change of the rules.
        """
        waiting = list(state.open.values())
        for begun in first:
            state = self.turn(state, begun)
        self._submit(state, waiting)
        while self._goes_on(state) and not self.stop():
            event = self._next_event(state)
            if event is not None:
                state = self.turn(state, event)
            self.tick()
        return state

    def _goes_on(self, state: LoopState) -> bool:
        """Return True if a task is open that can end in time."""
        if state.finished or (self.due is not None and self.due.seconds_left() <= 0):
            return False
        return bool(self._ready) or len(self._held) < len(state.open)

    def is_late(self, state: LoopState) -> bool:
        """Return True if only the run's time limit stopped the campaign."""
        return not (state.finished or self.stop()) and self.due is not None

    def turn(self, state: LoopState, event: e.Event) -> LoopState:
        """Apply an event, decide, and commit the turn; then submit its commands."""
        seen = apply_event(state, event)
        commands = self.policy(seen, event, self.rules)
        turn = e.Turn(event, commands)
        self.book.append(turn)
        self.ledger.add_turn(turn)
        state = apply_commands(seen, commands)
        self._cache_record(event)
        self.times.note_event(event)
        self.observe(state, turn)
        self._submit(state, commands)
        return state

    def _next_event(self, state: LoopState) -> e.Event | None:
        if self._ready:
            return self._ready.pop(0)
        outcome = self.pool.next(_TICK)
        return None if outcome is None else self._outcome_event(state, outcome)

    def _outcome_event(self, state: LoopState, outcome: Outcome) -> e.Event | None:
        if isinstance(outcome, LateTask):
            self._held.add(outcome.task.command.name)
            return None
        if isinstance(outcome, LostTask):
            task = outcome.task
            return e.TaskLost(task.command.name, task.attempt, outcome.reason)
        event = outcome.event
        if event.name not in state.open:
            return None
        if outcome.blob is not None and isinstance(event, e.Trained):
            self.book.put_model(event.model, outcome.blob)
        return event

    def _submit(self, state: LoopState, commands: Iterable[e.Command]) -> None:
        """Submit the commands without a known answer, by priority."""
        tasks = []
        for command in commands:
            known = self._known_answer(command)
            if known is not None:
                self._ready.append(known)
            elif not isinstance(command, e.Stop):
                tasks.append(self._make_task(state, command))
        for task in sorted(tasks, key=lambda task: (-task.priority, task.command.name)):
            self.pool.submit(task)

    def _make_task(self, state: LoopState, command: e.Command) -> Task:
        attempt = state.attempts.get(command.name, 0) + 1
        levels = self.levels.values()
        seconds = expected_cost(command, self.ledger, levels, state.costs)
        span = self.times.expected_span(command, self.ledger, state.costs)
        cargo = self._task_data(state, command)
        return Task(command, attempt, cargo, seconds, span, self.due)

    def _known_answer(self, command: e.Command) -> e.Answer | e.TaskLost | None:
        """Return an answer that needs no task, None without one.

        These are answers that a repair of the store kept, label costs, which the driver
        fits itself, and labels that exist already.
        """
        found = self.answers(command)
        if found is not None:
            return found
        match command:
            case e.Price():
                return e.Priced(
                    command.name, label_costs(self.ledger, self.levels.values())
                )
            case e.LabelFrame():
                return self._known_label(command)
            case _:
                return None

    def _known_label(self, command: e.LabelFrame) -> e.Answer | None:
        """Return a known label, or a failure that another try would repeat.

        One from the spool was made by this campaign, so it does not count as cached.
        """
        left = None if self.spool is None else self._spooled_label(command)
        if left is not None:
            return left
        for look in (self.ledger.get, *(cache.get for cache in self.caches)):
            match look(command.level, command.frame.id):
                case Label() as label:
                    return e.Labelled(command.name, label, cached=True)
                case Unlabelled() as refused if refused.is_permanent:
                    return e.NotLabelled(command.name, refused)
        return None

    def _spooled_label(self, command: e.LabelFrame) -> e.Answer | None:
        assert self.spool is not None
        if self.ledger.get(command.level, command.frame.id) is not None:
            return None
        match self.spool.get(command.level, command.frame.id):
            case Label() as label:
                return e.Labelled(command.name, label)
            case Unlabelled() as refused:
                return e.NotLabelled(command.name, refused)
        return None

    def _task_data(self, state: LoopState, command: e.Command) -> TaskData:
        match command:
            case e.Explore() | e.Examine():
                return TaskData(model=self.book.model(command.model))
            case e.Train():
                return self._training_data(state, command)
            case e.Recheck(frame=frame, level=level):
                label = self.ledger.labels[level, frame]
                assert isinstance(label, Label)
                return TaskData(frame=self.ledger.frames[frame], label=label)
            case _:
                return TaskData()

    def _training_data(self, state: LoopState, command: e.Train) -> TaskData:
        expensive = state.levels["expensive"]
        cheap = state.levels.get("cheap", expensive)  # one fidelity: no cheap ids
        sets = self.ledger.label_set
        return TaskData(
            model=None if command.parent is None else self.book.model(command.parent),
            data=TrainingData(
                cheap=sets(cheap, command.cheap),
                expensive=sets(expensive, command.expensive),
            ),
            test=sets(expensive, command.test),
            heldout=pack_frames(
                [self.ledger.frames[frame] for frame in command.heldout]
            ),
        )

    def _cache_record(self, event: e.Event) -> None:
        match event:
            case e.Labelled(label=label, cached=False):
                record: Label | Unlabelled = label
            case e.NotLabelled(unlabelled=unlabelled) if unlabelled.is_permanent:
                record = unlabelled
            case e.Trained(name=name) if self.spool is not None:
                self.spool.drop_training(name)
                return
            case _:
                return
        for cache in self.caches:
            cache.put(record)
        if self.spool is not None:
            self.spool.drop_label(record)
