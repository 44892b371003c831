"""The Dask pool: the only file that knows futures.

Dask is disposable: results are committed by the driver and released at once, and what a
dead cluster forgets is submitted again from the journal.
"""

import contextlib
import logging
import os
import queue
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.resource_tracker import ensure_running
from typing import Any

from alloop.core.errors import InputError
from alloop.loop.kit import Kit
from alloop.loop.pools import InlinePool, Loss, Outcome, Pool, Task
from alloop.loop.workshop import perform


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Where the work runs.

    kind: "local" (embedded processes), "inline" (this process) or "address" (a running
    scheduler). workers: processes of a local cluster, None for one a core.
    """

    kind: str = "local"
    workers: int | None = None
    address: str | None = None


def open_pool(plan: ClusterPlan, kit: Kit, client: Any = None) -> Pool:
    """The pool of a given client, or else the one that the plan describes; InputError
    where that cannot be reached."""
    if client is None and plan.kind == "inline":
        return InlinePool(kit)
    return DaskPool(plan, kit, client)


def cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


class DaskPool:
    """Commands as Dask tasks, one thread a worker process."""

    def __init__(self, plan: ClusterPlan, kit: Kit, client: Any = None) -> None:
        self._cluster: Any = None
        self._client = client
        if client is None:
            self._cluster, self._client = _connect(plan)
        self._owns = client is None
        self._kit = kit
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks: dict[str, tuple[Task, Any]] = {}

    def submit(self, task: Task) -> None:
        """Send the task to the scheduler."""
        future = self._client.submit(
            perform,
            task.command,
            task.cargo,
            self._kit,
            key=task.key,
            priority=task.priority,
            pure=False,
        )
        self._tasks[task.key] = (task, future)
        future.add_done_callback(self._done.put)

    def next(self, timeout: float) -> Outcome | None:
        """The next outcome, or None after `timeout` seconds."""
        try:
            future = self._done.get(timeout=timeout)
        except queue.Empty:
            return None
        task, _ = self._tasks.pop(future.key, (None, None))
        if task is None:  # a released future reports once more
            return None
        try:
            if future.status == "finished":
                done: Outcome = future.result(timeout=60)
                return done
            return Loss(task, _reason(future))
        finally:
            future.release()

    def close(self) -> None:
        """Leave a foreign cluster; end an own one with all its processes, at once."""
        self._tasks.clear()
        if not self._owns:
            return
        with _quiet():
            for pid in _worker_pids(self._cluster):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._client.close(timeout=5)
            if self._cluster is not None:
                self._cluster.close(timeout=5)


def _connect(plan: ClusterPlan) -> tuple[Any, Any]:
    from distributed import Client, LocalCluster

    if plan.kind == "address":
        try:
            return None, Client(plan.address, timeout=10, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"expected a Dask scheduler at {plan.address}, nothing answered there "
                f"({error}); start one, or use `cluster: {{kind: local}}`"
            ) from error
    with _quiet(), _deaf():
        cluster = LocalCluster(
            n_workers=plan.workers or cores(),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    return cluster, Client(cluster, set_as_default=False)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C in a terminal reaches every process of the group. Threads and processes
    that start here inherit a blocked SIGINT: the driver alone decides what to do."""
    ensure_running()  # of multiprocessing: it would unblock the signal on its first use
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _worker_pids(cluster: Any) -> list[int]:
    nannies = [] if cluster is None else list(cluster.workers.values())
    return [nanny.pid for nanny in nannies if getattr(nanny, "pid", None)]


def _reason(future: Any) -> str:
    if future.status == "cancelled":
        return "the scheduler dropped it"
    error = future.exception(timeout=60)
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _quiet() -> Any:
    """Dask warns about ports and tells of every worker it closes; nobody asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
