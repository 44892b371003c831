"""Where commands run: in this process, or on a Dask cluster of processes.

A pool is disposable: whatever it forgets, the driver submits again from the journal.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from alloop.loop import events as e
from alloop.workers import process_labellers
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.tasks import TaskResult, perform_command
from alloop.workers.time_limits import TaskSpan, TimeLimit


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A command on its way, with the data it names; seconds it will take, or any
    number that grows with them, 0 where nobody knows.

    span: how long it will take, due: until when it must have ended.
    """

    command: e.Command
    attempt: int
    cargo: TaskData = field(default_factory=TaskData)
    seconds: float = 0.0
    span: TaskSpan = field(default_factory=TaskSpan)
    due: TimeLimit | None = None

    @property
    def key(self) -> str:
        """The key in the scheduler: a name is tried under a new key each time."""
        return f"{self.command.name}#{self.attempt}"

    @property
    def priority(self) -> float:
        """Expensive labels first, then cheap ones, then training, then all else; among
        equals what takes longest, so that none begins when the others end."""
        return _command_rank(self.command) + self.seconds / (1.0 + self.seconds)


def _command_rank(command: e.Command) -> int:
    match command:
        case e.LabelFrame(fidelity="expensive"):
            return 4
        case e.LabelFrame():
            return 3
        case e.Train():
            return 2
        case _:
            return 1


@dataclass(frozen=True, slots=True, eq=False)
class LostTask:
    """A task that did not come back."""

    task: Task
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LateTask:
    """A task that did not start, since it could not have ended in time."""

    task: Task


Outcome = TaskResult | LostTask | LateTask


class Pool(Protocol):
    """What the driver needs of a cluster."""

    def submit(self, task: Task) -> None:
        """Start the task when there is room."""
        ...

    def next(self, timeout: float) -> Outcome | None:
        """The next outcome, or None after `timeout` seconds."""
        ...

    def close(self) -> None:
        """End all processes that this pool started."""
        ...


class InlinePool:
    """Runs tasks one after the other in this process: for tests and small machines."""

    def __init__(
        self, kit: WorkerSettings, work: Callable[..., TaskResult] = perform_command
    ) -> None:
        self._kit = kit
        self._work = work
        self._queue: list[tuple[float, int, Task]] = []
        self._order = count()

    def submit(self, task: Task) -> None:
        """Queue the task."""
        heapq.heappush(self._queue, (-task.priority, next(self._order), task))

    def next(self, timeout: float) -> Outcome | None:  # noqa: ARG002 - never waits
        """Run the most urgent task."""
        if not self._queue:
            return None
        _, _, task = heapq.heappop(self._queue)
        if task.due is not None and not task.due.allows(task.span):
            return LateTask(task)
        try:
            return self._work(task.command, task.cargo, self._kit)
        except Exception as error:  # noqa: BLE001 - any bug of a task is a lost task
            return LostTask(task, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """End the label child."""
        self._queue.clear()
        process_labellers.close_labellers()
