"""Tasks on workers: plain functions that carry out a command and return its event.

They do not depend on the store, the scheduler or later decisions. A label that took
long is saved in the spool before it is returned, in case the driver is gone.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.core.seeds import random_stream
from alloop.evaluation import TrainedMember
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.direct import DirectLabeller
from alloop.labels.recheck import recheck_label, tighter_level
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Prepare,
    Price,
    Recheck,
    Sample,
    Stop,
    Train,
    TrainPart,
)
from alloop.potentials.freed_memory import keep_freed_memory
from alloop.workers.first_frames import prepare_molecule, sample_frames
from alloop.workers.md_tasks import perform_examine, perform_explore
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.spool import find_label, label_in_progress, leave_label
from alloop.workers.training_task import (
    perform_member,
    perform_training,
    train_part,
)

_TimedRecord: TypeAlias = tuple[Label | Unlabelled, e.Timing]
LONG = 2.0  # s; longer labels are worth writing to a file


@dataclass(frozen=True, slots=True, eq=False)
class TaskResult:
    """The event of a command and, after training, the model's blob."""

    event: e.Answer
    blob: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MemberResult:
    """A potential trained for the training command `name`, and when and where."""

    name: str
    trained: TrainedMember
    timing: e.Timing


def perform_task(
    command: Command, task_data: TaskData, settings: WorkerSettings
) -> TaskResult | MemberResult:
    """Carry out a command, or one part of a training that was split."""
    keep_freed_memory()
    if not isinstance(command, Train) or task_data.member is None:
        return perform_command(command, task_data, settings)
    clock = _TaskClock()
    trained = perform_member(command, task_data, settings)
    return MemberResult(command.name, trained, clock.timing())


def perform_command(
    command: Command, task_data: TaskData, settings: WorkerSettings
) -> TaskResult:
    """Carry out a command. Raises only for bugs and lost resources."""
    clock = _TaskClock()
    match command:
        case LabelFrame():
            return _perform_label(command, settings, clock)
        case Explore():
            explored = perform_explore(command, task_data, settings)
            return TaskResult(replace(explored, timing=clock.timing()))
        case Examine():
            examined = perform_examine(command, task_data, settings)
            return TaskResult(replace(examined, timing=clock.timing()))
        case Train() | TrainPart():
            return _perform_train(command, task_data, settings, clock)
        case Recheck():
            return _perform_recheck(command, task_data, settings, clock)
        case Prepare() | Sample():
            return _perform_first_frames(command, settings, clock)
        case Price() | Stop():
            raise TypeError(f"{command.name} is the driver's to answer")


class _TaskClock:
    """A clock of wall and CPU time from its creation on.

    The CPU time of label children is passed to `timing`.
    """

    def __init__(self) -> None:
        self.started = time.time()
        self._cpu = time.process_time()

    def timing(self, children: float = 0.0) -> e.Timing:
        cpu = time.process_time() - self._cpu + children
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return e.Timing(self.started, time.time(), cpu, worker)


def _perform_label(
    command: LabelFrame, settings: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    with label_in_progress():
        record, timing = _leftover_label(command, settings) or _made_label(
            command, settings, clock
        )
    match record:
        case Label():
            return TaskResult(e.Labelled(command.name, record, timing))
        case Unlabelled():
            return TaskResult(e.NotLabelled(command.name, record, timing))


def _leftover_label(
    command: LabelFrame, settings: WorkerSettings
) -> _TimedRecord | None:
    """Return a record that a worker of an earlier run left in the spool, None without.

    Such a worker went on without its driver, and may have finished since this command
    was submitted.
    """
    if settings.spool is None:
        return None
    record = find_label(settings.spool, command.level, command.frame.id)
    return None if record is None else (record, e.Timing())


def _made_label(
    command: LabelFrame, settings: WorkerSettings, clock: _TaskClock
) -> _TimedRecord:
    record = labeller_for(settings, settings.level(command.level)).label(command.frame)
    timing = clock.timing(record.cpu_seconds if settings.isolate else 0.0)
    is_long = timing.ended - timing.started > LONG
    if settings.spool is not None and is_long and record.is_permanent:
        leave_label(settings.spool, record)
    return record, timing


def _perform_train(
    command: Train | TrainPart,
    task_data: TaskData,
    settings: WorkerSettings,
    clock: _TaskClock,
) -> TaskResult:
    if isinstance(command, TrainPart):
        part = train_part(command, task_data, settings)
        return TaskResult(replace(part, timing=clock.timing()))
    event, blob = perform_training(command, task_data, settings)
    timing = _joined_timing(clock.timing(), task_data.timings)
    return TaskResult(replace(event, timing=timing), blob)


def _joined_timing(last: e.Timing, parts: Sequence[e.Timing]) -> e.Timing:
    """Return the timing of a task with its parts: the first start, all CPU seconds."""
    return replace(
        last,
        started=min([last.started, *(part.started for part in parts)]),
        cpu_seconds=last.cpu_seconds + sum(part.cpu_seconds for part in parts),
    )


def _perform_recheck(
    command: Recheck, task_data: TaskData, settings: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    if task_data.frame is None or task_data.label is None:
        raise TypeError("Recheck needs a frame and its label in its data")
    labeller = labeller_for(settings, tighter_level(settings.level(command.level)))
    rng = random_stream(settings.seed, command.name)
    noise = recheck_label(task_data.frame, task_data.label, labeller, rng)
    timing = clock.timing(noise.cpu_seconds if settings.isolate else 0.0)
    return TaskResult(e.Rechecked(command.name, noise, timing))


def _perform_first_frames(
    command: Prepare | Sample, settings: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    oracle = MeteredLabeller(
        labeller_for(settings, settings.levels["cheap"]), settings.isolate
    )
    event: e.Prepared | e.Sampled
    if isinstance(command, Prepare):
        event = prepare_molecule(command, settings, oracle)
    else:
        event = sample_frames(command, settings, oracle)
    return TaskResult(replace(event, timing=clock.timing(oracle.children)))


# One per kind of level: torch (models) and OpenMP (quantum chemistry) must not share
# a process.
_children: dict[tuple[Limits, str], LabelChild] = {}


def labeller_for(settings: WorkerSettings, level: Level) -> Labeller:
    """Return this process's labeller for the level.

    Isolated labellers of one kind of level share a running child process.
    """
    if not settings.isolate:
        return DirectLabeller(level)
    key = (settings.limits, level.kind)
    if key not in _children:
        _children[key] = LabelChild(settings.limits)
    return _children[key].labeller(level)


def close_labellers() -> None:
    """End the label children of this process."""
    for child in _children.values():
        child.close()
    _children.clear()


class MeteredLabeller:
    """A labeller that adds up the CPU seconds spent in its child."""

    def __init__(self, inner: Labeller, isolated: bool) -> None:
        self._inner = inner
        self._isolated = isolated
        self.children = 0.0

    def label(self, frame: Frame) -> Label | Unlabelled:
        """Return the inner labeller's answer."""
        record = self._inner.label(frame)
        if self._isolated:
            self.children += record.cpu_seconds
        return record
