"""The pool that runs commands on Dask; the only module that handles futures.

Dask holds no lasting state: the driver commits results and releases them at once, and
tasks that a dead cluster lost are submitted again from the journal.
"""

import logging
import queue
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeAlias
from uuid import uuid4

from alloop.core.errors import InputError
from alloop.core.roles import Scorer
from alloop.evaluation import member_numbers
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Train,
    TrainPart,
)
from alloop.workers import time_limits
from alloop.workers.cluster_plan import LABEL, LEARN, ClusterPlan
from alloop.workers.connection import Connection, connect_cluster
from alloop.workers.pools import InlinePool, LateTask, LostTask, Outcome, Pool, Task
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.shared_cluster import SharedCluster
from alloop.workers.tasks import MemberResult, TaskResult, perform_task
from alloop.workers.time_limits import TaskSpan

_PATIENCE = 60.0  # s to wait for a foreign scheduler to come back
_BREAKDOWNS = 5  # of a cluster in a row, without any outcome
_log = logging.getLogger(__name__)


def open_pool(
    plan: ClusterPlan,
    settings: WorkerSettings,
    client: Any = None,
    shared: SharedCluster | None = None,
) -> Pool:
    """Return the pool of a given client, or else the one that the plan describes.

    shared: the cluster of campaigns in a row. Raises InputError where its scheduler
    cannot be reached.
    """
    if client is None and plan.kind == "inline":
        return InlinePool(settings)
    return DaskPool(plan, settings, client, shared)


class _TaskRefused(Exception):
    """Raised where a task cannot end in time.

    worker: the one whose job ends too soon; None where the run itself does.
    """

    def __init__(self, worker: str | None = None) -> None:
        super().__init__(worker)
        self.worker = worker


def _run_task(
    command: Command,
    task_data: TaskData,
    settings: WorkerSettings,
    limits: tuple[time_limits.TaskSpan, time_limits.TimeLimit | None],
) -> TaskResult | MemberResult:
    """Carry out a command, or a part of one, on a worker.

    Raises _TaskRefused if it cannot be done in time.
    """
    span, run = limits
    if run is not None and not run.allows(span):
        raise _TaskRefused
    job = time_limits.worker_limit()
    if job is None or job.allows(span):
        return perform_task(command, task_data, settings)
    from distributed import get_worker

    raise _TaskRefused(get_worker().address)


# The first element makes all tasks of a run one group of the scheduler. Of a group that
# has had more tasks than two for each thread, it hands out as many as there are threads
# and queues the others by priority. Of a smaller one it hands out all at once, so that
# some wait behind the training of one worker while another is idle.
Key: TypeAlias = tuple[str, str]
_NOBODY = {"alloop-nobody": 1}  # a resource that no worker has


@dataclass(slots=True, eq=False)
class _OpenTraining:
    """The command's task while it is open, None after a loss, and the results so far.

    Results do not depend on the attempt that gave them.
    """

    task: Task | None
    results: dict[int, MemberResult] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class OpenTrainings:
    """The trainings that are split into tasks, until all their potentials are there.

    A scorer such as a committee asks for further trainings. Each is a task, as is that
    of the generation, and one more fits the scorer once all are there. Each task
    resumes from its own states after a kill.
    """

    scorer: Scorer
    _open: dict[str, _OpenTraining] = field(default_factory=dict)

    def split(self, task: Task) -> tuple[Task, ...]:
        """Return the tasks to submit for this one: itself where it is not split."""
        numbers = member_numbers(self.scorer)
        if not numbers or not isinstance(task.command, Train) or task.is_split:
            return (task,)
        if task.command.refine:  # nothing is trained anew but the scorer's own
            return (task,)
        training = self._open.setdefault(task.command.name, _OpenTraining(task))
        training.task = task
        missing = [number for number in numbers if number not in training.results]
        if not missing:
            return (self._whole(training, task),)
        return tuple(
            replace(task, data=replace(task.data, member=number)) for number in missing
        )

    def add(self, result: MemberResult) -> Task | None:
        """Keep a result; return the task that needs all of them once they are there."""
        training, number = self._open.get(result.name), result.trained.number
        if training is None or number in training.results:
            return None
        training.results[number] = result
        numbers = set(member_numbers(self.scorer))
        if training.task is None or set(training.results) != numbers:
            return None
        return self._whole(training, training.task)

    def is_news(self, lost: Task) -> bool:
        """Return False for a loss in an attempt whose loss was reported before."""
        if not lost.is_split:
            return True
        training = self._open.get(lost.command.name)
        if training is None or training.task is None:
            return False
        if training.task.attempt != lost.attempt:
            return False
        training.task = None
        return True

    def close(self, name: str) -> None:
        """Forget a training that has ended."""
        self._open.pop(name, None)

    def _whole(self, training: _OpenTraining, task: Task) -> Task:
        results = tuple(training.results[n] for n in sorted(training.results))
        trained = tuple(result.trained for result in results)
        timings = tuple(result.timing for result in results)
        data = replace(task.data, trained=trained, timings=timings)
        return replace(task, data=data, span=TaskSpan())  # the trainings took the time


class DaskPool:
    """A pool that runs commands as Dask tasks, one thread per worker process.

    Labels at a foreign scheduler continue while no driver runs. Their keys are the same
    in the next run, so that it finds them; those that ended meanwhile are in the spool.
    """

    def __init__(
        self,
        plan: ClusterPlan,
        settings: WorkerSettings,
        client: Any = None,
        shared: SharedCluster | None = None,
    ) -> None:
        self._plan, self._settings, self._shared = plan, settings, shared
        self._owns = client is None
        connect = connect_cluster if shared is None else shared.take
        self._connection = connect(plan) if client is None else Connection(client)
        self._labels_continue = (
            self._owns and plan.kind == "address" and settings.spool is not None
        )
        self._run = uuid4().hex[:12]  # other campaigns may use the same scheduler
        self._campaign = sha256(str(settings.spool).encode()).hexdigest()[:12]
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks: dict[Key, tuple[Task, Any]] = {}
        self._trainings = OpenTrainings(settings.scoring.scorer)
        self._sent: Counter[Key] = Counter()
        self._placeholders: dict[str, Any] = {}  # by group
        self._breakdowns = 0

    def submit(self, task: Task) -> None:
        """Send the task to the scheduler; InputError if it outlasts any job.

        The trainings of a committee's members are tasks of their own.
        """
        for part in self._trainings.split(task):
            self._send(part)

    def _send(self, task: Task) -> None:
        _refuse_endless(task, self._plan)
        key, continues = self._task_key(task), self._labels_continue and _is_label(task)
        self._keep_group(key[0])
        future = self._connection.client.submit(
            _run_task,
            task.command,
            task.data,
            self._settings,
            (task.span, None if continues else task.limit),
            key=key,
            priority=task.priority,
            resources=self._plan.resources(_task_resource(task)),
            pure=False,
        )
        if continues:
            from distributed import fire_and_forget

            fire_and_forget(future)
        self._tasks[key] = (task, future)
        future.add_done_callback(self._done.put)

    def next(self, timeout: float) -> Outcome | None:
        """Return the next outcome, or None after `timeout` seconds."""
        self._connection.scale(self._waiting_tasks())
        try:
            future = self._done.get(timeout=timeout)
        except queue.Empty:
            return None
        task, pending = self._tasks.get(future.key, (None, None))
        if task is None or pending is not future:  # released futures report again
            return None
        return self._outcome(task, future)

    def close(self) -> None:
        """Disconnect from a foreign cluster; end an own one with all its processes.

        A shared one is kept if no task of this campaign runs there.
        """
        idle = not self._tasks
        self._tasks.clear()
        self._placeholders.clear()
        if self._owns and self._shared is not None and idle:
            self._shared.give_back(self._plan, self._connection)
        elif self._owns:
            self._connection.close()

    def _outcome(self, task: Task, future: Any) -> Outcome | None:
        if future.status not in ("finished", "error"):
            self._resubmit(future.key)
            return None
        try:
            done, error = _task_result(future)
        except (OSError, TimeoutError, CancelledError):  # the scheduler died meanwhile
            self._resubmit(future.key)
            return None
        del self._tasks[future.key]
        self._breakdowns = 0
        match done:
            case MemberResult():
                self._keep_member(done)
                return None
            case TaskResult():
                self._trainings.close(task.command.name)
                return done
        return self._failed_task(task, error)

    def _keep_member(self, result: MemberResult) -> None:
        """Keep a part of a training; submit the rest of it after the last part."""
        training = self._trainings.add(result)
        if training is not None:
            self._send(training)

    def _failed_task(
        self, task: Task, error: BaseException | None
    ) -> LateTask | LostTask | None:
        """Return what became of a task without a result.

        A worker without time for the task is retired, and the task submitted again.
        Where the run itself lacks the time, the task is late.
        """
        if isinstance(error, _TaskRefused) and error.worker is not None:
            client = self._connection.client
            client.retire_workers([error.worker], close_workers=True)
            self.submit(task)
            return None
        if not self._trainings.is_news(task):
            return None
        if isinstance(error, _TaskRefused):
            return LateTask(task)
        return LostTask(task, f"{type(error).__name__}: {error}")

    def _resubmit(self, key: Key) -> None:
        """Submit a dropped task again, or all tasks where the scheduler is gone.

        This is no failure of the task, so it does not count as an attempt.
        """
        if self._connection.is_alive:
            dropped = [self._tasks.pop(key)]
        else:
            self._reconnect()
            dropped = list(self._tasks.values())
            self._tasks.clear()
        for task, _ in dropped:
            self.submit(task)

    def _reconnect(self) -> None:
        """Restart an own cluster, or wait for a foreign one."""
        self._breakdowns += 1
        if not self._owns or self._breakdowns > _BREAKDOWNS:
            raise InputError(
                "the Dask scheduler stopped answering; nothing is lost: start it again "
                "and run the campaign again"
            )
        _log.warning("the scheduler is gone; %d tasks are sent again", len(self._tasks))
        self._placeholders.clear()
        self._connection.close()
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._connection = connect_cluster(self._plan)
            except InputError:
                if self._plan.kind != "address" or time.monotonic() > until:
                    raise
                time.sleep(1)
            else:
                return

    def _task_key(self, task: Task) -> Key:
        whose = (
            self._campaign if self._labels_continue and _is_label(task) else self._run
        )
        key = (f"alloop-{whose}", task.key)
        self._sent[key] += 1
        many = self._sent[key]
        return key if many == 1 else (key[0], f"{task.key}~{many}")

    def _keep_group(self, group: str) -> None:
        """Keep the scheduler from forgetting a group whose tasks have all ended.

        It would count the tasks of each round anew. A task that no worker can run does
        so, without work or data.
        """
        if group not in self._placeholders:
            self._placeholders[group] = self._connection.client.submit(
                int, key=(group, "placeholder"), resources=_NOBODY
            )

    def _waiting_tasks(self) -> Mapping[str, int]:
        """Return the number of waiting or running tasks by resource.

        A single group of workers does them all.
        """
        groups = [] if self._plan.batch is None else list(self._plan.batch.groups)
        if len(groups) == 1:
            return {groups[0]: len(self._tasks)}
        return Counter(_task_resource(task) for task, _ in self._tasks.values())


def _task_result(
    future: Any,
) -> tuple[TaskResult | MemberResult | None, BaseException | None]:
    """Return the result and the exception of a task.

    Raises OSError, TimeoutError or CancelledError where the scheduler is gone.
    """
    if future.status == "finished":
        done, error = future.result(timeout=60), None
    else:
        done, error = None, future.exception(timeout=60)
    future.release()
    return done, error


def _refuse_endless(task: Task, plan: ClusterPlan) -> None:
    batch = plan.batch
    if (
        batch is None
        or task.span.likely < time_limits.TimeLimit(0.0, batch.walltime).useful_seconds
    ):
        return
    raise InputError(
        f"{task.command.name} will take about {task.span.likely:.0f} s, more than a "
        f"job's {batch.walltime:.0f} s allow: raise `cluster: walltime`"
    )


def _is_label(task: Task) -> bool:
    return isinstance(task.command, LabelFrame)


def _task_resource(task: Task) -> str:
    learns = isinstance(task.command, Train | TrainPart | Explore | Examine)
    return LEARN if learns else LABEL
