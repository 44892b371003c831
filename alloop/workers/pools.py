"""The interface of pools, which run commands, and a pool in this process.

A pool holds no lasting state: the driver submits lost tasks again from the journal.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from alloop.loop.commands import Command, LabelFrame, Recheck, Train
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.tasks import TaskResult, close_labellers, perform_command
from alloop.workers.time_limits import TaskSpan, TimeLimit


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A submitted command with the data it needs.

    data: what the command refers to. seconds: expected CPU seconds, for the priority, 0
    if unknown. span: expected wall time. limit: the time limit of the run.
    """

    command: Command
    attempt: int
    data: TaskData = field(default_factory=TaskData)
    seconds: float = 0.0
    span: TaskSpan = field(default_factory=TaskSpan)
    limit: TimeLimit | None = None

    @property
    def key(self) -> str:
        """The key in the scheduler, different for each attempt and each part."""
        member = self.data.member
        part = "" if member is None else f"/{member}"
        return f"{self.command.name}#{self.attempt}{part}"

    @property
    def is_split(self) -> bool:
        """True if this is one task of a training that was split."""
        return self.data.member is not None or bool(self.data.trained)

    @property
    def priority(self) -> float:
        """The priority; the task with the highest runs first.

        Expensive labels come first, then cheap ones, then training, then all else;
        rechecks, for which nothing waits, come last. Among equals the longest task
        comes first, so that none starts when the others end.
        """
        return _command_rank(self.command) + self.seconds / (1.0 + self.seconds)


def _command_rank(command: Command) -> int:
    match command:
        case LabelFrame(fidelity="expensive"):
            return 4
        case LabelFrame():
            return 3
        case Train():
            return 2
        case Recheck():
            return 0
        case _:
            return 1


@dataclass(frozen=True, slots=True, eq=False)
class LostTask:
    """A task without a result, because it raised or its worker was lost."""

    task: Task
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LateTask:
    """A task that was not started because it could not have ended in time."""

    task: Task


Outcome = TaskResult | LostTask | LateTask


class Pool(Protocol):
    """The interface of a pool: tasks in, outcomes out."""

    def submit(self, task: Task) -> None:
        """Queue the task; it starts when a worker is free."""
        ...

    def next(self, timeout: float) -> Outcome | None:
        """Return the next outcome, or None after `timeout` seconds."""
        ...

    def close(self) -> None:
        """End all processes that this pool started."""
        ...


class InlinePool:
    """A pool that runs tasks one by one in this process: for tests, small machines."""

    def __init__(
        self,
        settings: WorkerSettings,
        work: Callable[..., TaskResult] = perform_command,
    ) -> None:
        self._settings = settings
        self._work = work
        self._queue: list[tuple[float, int, Task]] = []
        self._order = count()

    def submit(self, task: Task) -> None:
        """Queue the task."""
        heapq.heappush(self._queue, (-task.priority, next(self._order), task))

    def next(self, timeout: float) -> Outcome | None:  # noqa: ARG002 - never waits
        """Run the task of the highest priority; None without any."""
        if not self._queue:
            return None
        _, _, task = heapq.heappop(self._queue)
        if task.limit is not None and not task.limit.allows(task.span):
            return LateTask(task)
        try:
            return self._work(task.command, task.data, self._settings)
        except Exception as error:  # noqa: BLE001 - any bug of a task is a lost task
            return LostTask(task, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Drop all tasks and end the label children."""
        self._queue.clear()
        close_labellers()
