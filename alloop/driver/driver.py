"""The driver of the loop: submits commands, waits, commits events. No decisions."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Label, LabelSet, TrainingData, Unlabelled
from alloop.history.record_index import LabelIndex
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Price,
    Recheck,
    Stop,
    Train,
    TrainPart,
)
from alloop.loop.policy import Policy, decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.workers.pools import LateTask, LostTask, Outcome, Pool, Task
from alloop.workers.settings import SuppliedFrames, TaskData
from alloop.workers.spool import Spool
from alloop.workers.task_times import TaskTimes, expected_cost, label_costs
from alloop.workers.tasks import TaskResult
from alloop.workers.time_limits import TimeLimit

_TICK = 0.25  # s between two checks for a stop request
_LOOK = 0.2  # s between two looks at labels that another campaign computes, at least
_LOOK_SHARE = 0.05  # of the driver's time for such looks, at most


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


class Claims(Protocol):
    """Claims on labels, among campaigns that share a cache."""

    def take(self, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of these labels that no other campaign computes now."""
        ...

    def release(self, key: tuple[str, str]) -> None:
        """Give a label back."""
        ...


@dataclass(slots=True)
class Driver:
    """The driver of one run of a campaign, the only writer of its store.

    archive: of the store. policy: decides what follows from an event. levels: by
    fidelity, to estimate the costs of labels. observe: called with the state and the
    turn after every commit. stop: returns True to end early. tick: called after every
    wait. time_limit: of the run. task_times: expected durations of tasks. spool: labels
    that workers left behind. kept_answer: returns an answer that a repair of the store
    kept. supplied: frames of the user's that trainings need. claims: on labels, where
    other campaigns may compute the same ones.
    """

    archive: TurnLog
    label_index: LabelIndex
    rules: Rules
    pool: Pool
    policy: Policy = decide
    levels: Mapping[Fidelity, Level] = field(default_factory=dict)
    caches: Sequence[LabelStore] = ()
    observe: Callable[[LoopState, e.Turn], None] = lambda _state, _turn: None
    stop: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None
    time_limit: TimeLimit | None = None
    task_times: TaskTimes = field(default_factory=TaskTimes)
    spool: Spool | None = None
    kept_answer: Callable[[Command], e.Answer | e.TaskLost | None] = lambda _command: (
        None
    )
    supplied: SuppliedFrames = field(default_factory=SuppliedFrames)
    claims: Claims | None = None
    _elsewhere: dict[str, LabelFrame] = field(default_factory=dict)
    _next_look: float = 0.0
    _postponed: set[str] = field(default_factory=set)
    _ready: list[e.Answer | e.TaskLost] = field(default_factory=list)

    def run(self, state: LoopState, first: Iterable[e.Event] = ()) -> LoopState:
        """Continue from the state until nothing is open, or a stop is requested.

        first: events to apply before anything else, such as a change of the rules.
        """
        molecules = len(state.start)
        waiting = [
            self.rules.with_temperatures(command, molecules)
            for command in state.open.values()
        ]
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
        if state.finished or (
            self.time_limit is not None and self.time_limit.seconds_left() <= 0
        ):
            return False
        return bool(self._ready) or len(self._postponed) < len(state.open)

    def is_late(self, state: LoopState) -> bool:
        """Return True if only the run's time limit stopped the campaign."""
        return not (state.finished or self.stop()) and self.time_limit is not None

    def turn(self, state: LoopState, event: e.Event) -> LoopState:
        """Apply an event, decide, and commit the turn; then submit its commands."""
        seen = apply_event(state, event)
        decided = self.policy(seen, event, self.rules)
        if not isinstance(decided, tuple):
            raise InputError(
                "expected a policy that returns a tuple of commands, "
                f"{getattr(self.policy, '__name__', type(self.policy).__name__)} "
                f"returned {type(decided).__name__}"
            )
        commands = tuple(
            self.rules.with_temperatures(command, len(seen.start))
            for command in decided
        )
        turn = e.Turn(event, commands)
        self._share_label(event)  # first: a kill in between costs nobody a label
        self.archive.append(turn)
        self.label_index.add_turn(turn)
        state = apply_commands(seen, commands)
        self._drop_spooled(event)
        self._release_label(event)
        self.task_times.note_event(event)
        self.observe(state, turn)
        self._submit(state, commands)
        return state

    def _next_event(self, state: LoopState) -> e.Event | None:
        self._look_elsewhere(state)
        if self._ready:
            return self._ready.pop(0)
        outcome = self.pool.next(_TICK)
        if outcome is None and self._elsewhere:
            time.sleep(_LOOK)  # some pools do not wait
        return None if outcome is None else self._outcome_event(state, outcome)

    def _look_elsewhere(self, state: LoopState) -> None:
        """Take over the labels that another campaign has made, or given back."""
        begin = time.monotonic()
        if self._elsewhere and begin >= self._next_look:
            commands = [x for x in self._elsewhere.values() if x.name in state.open]
            self._elsewhere.clear()
            self._submit(state, commands)
            end = time.monotonic()
            self._next_look = end + max(_LOOK, (end - begin) / _LOOK_SHARE)

    def _outcome_event(self, state: LoopState, outcome: Outcome) -> e.Event | None:
        if not isinstance(outcome, LateTask | LostTask):
            return self._result_event(state, outcome)
        self._release(outcome.task.command)
        if isinstance(outcome, LateTask):
            self._postponed.add(outcome.task.command.name)
            return None
        task = outcome.task
        return e.TaskLost(task.command.name, task.attempt, outcome.reason)

    def _result_event(self, state: LoopState, outcome: TaskResult) -> e.Event | None:
        event = outcome.event
        if event.name not in state.open:
            return None
        if outcome.blob is not None and isinstance(event, e.Trained):
            self.archive.put_model(event.model, outcome.blob)
        return event

    def _submit(self, state: LoopState, commands: Iterable[Command]) -> None:
        """Submit the commands without a known answer, by priority."""
        unanswered = self._unclaimed(self._unanswered(commands))
        tasks = [
            self._make_task(state, command)
            for command in unanswered
            if not isinstance(command, Stop)
        ]
        for task in sorted(tasks, key=lambda task: (-task.priority, task.command.name)):
            self.pool.submit(task)

    def _unanswered(self, commands: Iterable[Command]) -> list[Command]:
        """Return the commands without a known answer; the others' answers are ready."""
        unanswered = []
        for command in commands:
            answer = self._known_answer(command)
            if answer is not None:
                self._ready.append(answer)
            else:
                unanswered.append(command)
        return unanswered

    def _unclaimed(self, commands: list[Command]) -> list[Command]:
        """Return the commands without the labels that another campaign computes.

        One may have become known between the look at the caches and the claim.
        """
        labels = {_label_key(x): x for x in commands if isinstance(x, LabelFrame)}
        if self.claims is None or not labels:
            return commands
        free = self.claims.take(labels.keys())
        self._elsewhere |= {x.name: x for key, x in labels.items() if key not in free}
        unanswered = self._unanswered(
            x for x in commands if x.name not in self._elsewhere
        )
        names = {command.name for command in unanswered}
        for key in free:
            if labels[key].name not in names:
                self.claims.release(key)
        return unanswered

    def _release_label(self, event: e.Event) -> None:
        """Let other campaigns have a label that is answered; a good one is cached."""
        match event:
            case e.Labelled(label=record) | e.NotLabelled(unlabelled=record):
                if self.claims is not None:
                    self.claims.release((record.level, record.frame))

    def _release(self, command: Command) -> None:
        if self.claims is not None and isinstance(command, LabelFrame):
            self.claims.release(_label_key(command))

    def _make_task(self, state: LoopState, command: Command) -> Task:
        attempt = state.attempts.get(command.name, 0) + 1
        levels = self.levels.values()
        seconds = expected_cost(command, self.label_index, levels, state.labels.costs)
        span = self.task_times.expected_span(
            command, self.label_index, state.labels.costs
        )
        data = self._task_data(state, command)
        return Task(
            command=command,
            attempt=attempt,
            data=data,
            seconds=seconds,
            span=span,
            limit=self.time_limit,
        )

    def _known_answer(self, command: Command) -> e.Answer | e.TaskLost | None:
        """Return an answer that needs no task, None without one.

        These are answers that a repair of the store kept, label costs, which the driver
        fits itself, and labels that exist already.
        """
        answer = self.kept_answer(command)
        if answer is not None:
            return answer
        match command:
            case Price():
                return e.Priced(
                    command.name, label_costs(self.label_index, self.levels.values())
                )
            case LabelFrame():
                return self._known_label(command)
            case _:
                return None

    def _known_label(self, command: LabelFrame) -> e.Answer | None:
        """Return a known label, or a failure that another try would repeat.

        One from the spool was made by this campaign, so it does not count as cached.
        """
        left = None if self.spool is None else self._spooled_label(command)
        if left is not None:
            return left
        for look in (self.label_index.get, *(cache.get for cache in self.caches)):
            match look(command.level, command.frame.id):
                case Label() as label if len(label.forces) == len(command.frame):
                    return e.Labelled(command.name, label, cached=True)
                case Unlabelled() as refused if refused.is_permanent:
                    return e.NotLabelled(command.name, refused)
        return None

    def _spooled_label(self, command: LabelFrame) -> e.Answer | None:
        assert self.spool is not None
        if self.label_index.get(command.level, command.frame.id) is not None:
            return None
        match self.spool.get(command.level, command.frame.id):
            case Label() as label if len(label.forces) == len(command.frame):
                return e.Labelled(command.name, label)
            case Unlabelled() as refused:
                return e.NotLabelled(command.name, refused)
        return None

    def _task_data(self, state: LoopState, command: Command) -> TaskData:
        match command:
            case Explore():
                return TaskData(model=self.archive.model(command.model))
            case Examine():
                return TaskData(
                    model=self.archive.model(command.model),
                    known=self._known_frames(state, command),
                )
            case Train():
                return self._training_data(state, command)
            case TrainPart():
                return TaskData(
                    data=self._label_sets(state, command),
                    test=self._labels(state, "expensive", command.judged),
                    supplied=self.supplied,
                )
            case Recheck(frame=frame, level=level):
                label = self.label_index.labels[level, frame]
                assert isinstance(label, Label)
                return TaskData(frame=self.label_index.frames[frame], label=label)
            case _:
                return TaskData()

    def _known_frames(
        self, state: LoopState, command: Examine
    ) -> dict[int, tuple[Frame, ...]]:
        """Return start, conformers and learned frames of the molecules examined.

        Only the first piece looks for conformers, later ones need the start alone.
        """
        if command.equilibration == 0:
            return {}
        start: dict[int, tuple[Frame, ...]] = {
            x.molecule: (state.start[x.molecule],) for x in command.walkers
        }
        if command.piece:
            return start
        labels = state.labels
        learned = {*labels.trained_on("cheap"), *labels.trained_on("expensive")}
        pools: dict[int, set[FrameId]] = {molecule: set() for molecule in start}
        for entry in labels.entries():
            if entry.frame in learned and entry.molecule in pools:
                pools[entry.molecule].add(entry.frame)
        return {
            molecule: (
                *first,
                *state.conformers.get(molecule, ()),
                *(self.label_index.frames[x] for x in sorted(pools[molecule])),
            )
            for molecule, first in start.items()
        }

    def _training_data(self, state: LoopState, command: Train) -> TaskData:
        return TaskData(
            model=None
            if command.parent is None
            else self.archive.model(command.parent),
            data=self._label_sets(state, command),
            test=self._labels(state, "expensive", command.test),
            heldout=pack_frames(
                [self.label_index.frames[frame] for frame in command.heldout]
            ),
            ratios=state.labels.limit_ratios({*command.expensive}),
            supplied=self.supplied,
        )

    def _label_sets(self, state: LoopState, command: Train | TrainPart) -> TrainingData:
        return TrainingData(
            cheap=self._labels(state, "cheap", command.cheap),
            expensive=self._labels(state, "expensive", command.expensive),
        )

    def _labels(
        self, state: LoopState, fidelity: Fidelity, frames: Sequence[FrameId]
    ) -> LabelSet:
        """Return labels; without a cheap level there are no cheap ids."""
        level = state.levels.get(fidelity, state.levels["expensive"])
        return self.label_index.label_set(level, frames)

    def _share_label(self, event: e.Event) -> None:
        record = _new_record(event)
        if record is not None:
            for cache in self.caches:
                cache.put(record)

    def _drop_spooled(self, event: e.Event) -> None:
        record = _new_record(event)
        if self.spool is None:
            return
        if isinstance(event, e.Trained):
            self.spool.drop_training(event.name)
        elif record is not None:
            self.spool.drop_label(record)


def _new_record(event: e.Event) -> Label | Unlabelled | None:
    """Return the label or the lasting failure that an event brings, or None."""
    match event:
        case e.Labelled(label=label, cached=False):
            return label
        case e.NotLabelled(unlabelled=unlabelled) if unlabelled.is_permanent:
            return unlabelled
    return None


def _label_key(command: LabelFrame) -> tuple[str, str]:
    return command.level, command.frame.id
