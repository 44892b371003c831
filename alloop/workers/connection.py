"""Connections to a Dask scheduler, either started here or already running."""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from alloop.core.errors import InputError, Interrupted
from alloop.models.private_folder import own_folder
from alloop.workers.cluster_plan import (
    DASK_SETTINGS,
    LABEL,
    LEARN,
    ClusterPlan,
    available_cores,
)

if TYPE_CHECKING:
    from distributed import LocalCluster

_Made = TypeVar("_Made")
_HERE = "127.0.0.1"
_LOOK = 0.1  # s between two checks of what starts
_GIVE_UP = 1.0  # s to wait for an interrupted start to end
_CARDS = "CUDA_VISIBLE_DEVICES"
_SCALE = 10.0  # s between two updates of the jobs of a batch system


@runtime_checkable
class ScalingCluster(Protocol):
    """A cluster whose number of workers follows the work."""

    def scale_jobs(self, tasks: Mapping[str, int]) -> None:
        """Fit the jobs to the number of tasks by resource."""
        ...


@dataclass(slots=True)
class Connection:
    """A Dask client, and its cluster where that was started here."""

    client: Any
    cluster: Any = None
    _scaled: float = 0.0

    @property
    def is_alive(self) -> bool:
        """True if the scheduler answers."""
        running = self.client.status == "running"
        mine = self.cluster is None or self.cluster.status.name == "running"
        scheduler = getattr(self.cluster, "scheduler", None)
        return running and mine and (scheduler is None or _is_serving(scheduler))

    def scale(self, tasks: Mapping[str, int]) -> None:
        """Adapt an own cluster's jobs to the number of tasks by resource."""
        if not isinstance(self.cluster, ScalingCluster):
            return
        if time.monotonic() - self._scaled > _SCALE:
            self._scaled = time.monotonic()
            self.cluster.scale_jobs(tasks)

    def close(self) -> None:
        """Disconnect from a foreign cluster; end an own one with all its processes."""
        closing = contextlib.suppress(OSError, RuntimeError)  # it may be partly down
        with _quiet_dask():
            for pid in _worker_pids(self.cluster):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with closing:
                self.client.close(timeout=5)
            with closing:
                self._close()

    def _close(self) -> None:
        if self.cluster is None:
            return
        if not _is_serving(self.cluster.scheduler):  # a shutdown request would time out
            self.cluster.shutdown_scheduler = False
        self.cluster.close(timeout=20)


def connect_cluster(plan: ClusterPlan) -> Connection:
    """Connect to the scheduler of the plan; start it unless it is at an address.

    Raises InputError where nothing answers, or a batch system refuses.
    """
    # It tells of messages that an ending connection did not send, with a traceback.
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    if plan.kind == "address":
        return Connection(_foreign_client(plan))
    return _local_cluster(plan) if plan.batch is None else _batch_cluster(plan)


def _foreign_client(plan: ClusterPlan) -> Any:
    from distributed import Client

    try:
        security = None if plan.tls is None else plan.tls.security()
        return Client(plan.address, timeout=10, set_as_default=False, security=security)
    except (OSError, RuntimeError, ValueError, TypeError) as error:  # the last two: TLS
        raise InputError(
            f"expected a Dask scheduler at {plan.address}, nothing answered there "
            f"({_short_message(error)}); start one, give its `tls:` files if it "
            "speaks TLS, or "
            "use `cluster: {kind: local}`"
        ) from error


def _short_message(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _local_cluster(plan: ClusterPlan) -> Connection:
    """Start a local cluster that only this run can talk to.

    Its TLS keys are made for this run and stay in the memory of its processes.
    """
    import dask
    from distributed import Client

    # Data that exceed memory are spilled there and unpickled again: keep it private.
    folder = own_folder(Path(tempfile.gettempdir()) / f"alloop-workers-{os.getuid()}")

    with _quiet_dask(), _free_workers_only(), dask.config.set(DASK_SETTINGS):
        try:
            cluster = start_in_thread(partial(_started_cluster, plan, folder))
        except (OSError, RuntimeError, TimeoutError) as error:
            raise Interrupted(
                "a worker process ended while it was started "
                f"({_short_message(error)}); "
                "nothing is lost: see that memory and processes are not short, and "
                "run it again"
            ) from error
    return Connection(Client(cluster, set_as_default=False), cluster)


def _started_cluster(plan: ClusterPlan, folder: Path) -> "LocalCluster":
    import dask
    from distributed import LocalCluster, Security

    workers = plan.workers or available_cores()
    settings = deepcopy(dask.config.get("distributed"))
    cluster = LocalCluster(
        n_workers=0 if plan.gpus else workers,
        threads_per_worker=1,
        processes=True,
        host=_HERE,
        protocol="tls://",
        security=Security.temporary(),
        dashboard_address=f"{_HERE}:0",
        scheduler_kwargs={"dashboard": False},
        worker_dashboard_address=None,
        local_directory=str(folder),
        config={"distributed": settings},  # for restarted workers too
        silence_logs=logging.CRITICAL,
    )
    if plan.adaptive is not None:
        from alloop.workers import adaptive

        low, high = plan.adaptive
        cluster.adapt(
            Adaptive=adaptive.TaskCount,
            minimum=low,
            maximum=high,
            interval="1s",
            wait_count=adaptive.IDLE_CHECKS,
        )
    if plan.gpus:
        spec = separate_workers(cluster.new_spec, workers, plan.gpus)
        cluster.worker_spec.update(spec)
        cluster.sync(cluster._correct_state)
    return cluster


def separate_workers(
    spec: Mapping[str, Any], workers: int, gpus: int
) -> dict[str, dict[str, Any]]:
    """Return the specs of workers by name: one for each card, the others for labels.

    Each that learns sees its own card alone. At least one makes labels.
    """
    cards = [card for card in os.environ.get(_CARDS, "").split(",") if card]
    cards = cards or [str(number) for number in range(gpus)]
    groups = [("learn", LEARN, {_CARDS: card}) for card in cards[:gpus]]
    groups += [("label", LABEL, {})] * max(1, workers - gpus)
    return {
        f"{name}-{number}": {
            **spec,
            "options": {
                **spec["options"],
                "resources": {resource: 1},
                "env": {**spec["options"].get("env", {}), **environment},
            },
        }
        for number, (name, resource, environment) in enumerate(groups)
    }


def _batch_cluster(plan: ClusterPlan) -> Connection:
    from distributed import Client

    try:
        from alloop.workers.batch_jobs import start_scheduler
    except ImportError as error:
        raise InputError(
            f"`cluster: {{kind: {plan.kind}}}` needs the package {error.name}, which "
            "is not here: pip install 'alloop[jobqueue]'"
        ) from error
    assert plan.batch is not None
    batch = plan.batch
    with _quiet_dask(), _free_workers_only():
        cluster = start_in_thread(lambda: start_scheduler(batch, plan.folder))
    return Connection(Client(cluster, set_as_default=False), cluster)


def _is_serving(scheduler: Any) -> bool:
    return bool(scheduler.status.name == "running")


def start_in_thread(make: Callable[[], _Made]) -> _Made:
    """Call `make` in a separate thread and return its result, or raise its exception.

    Ctrl-C in a terminal reaches every process of the group. Threads and processes that
    start in this thread inherit a blocked SIGINT, so that only the caller receives it.
    If it interrupts the call, the processes started so far are killed.
    """
    made: list[_Made] = []
    raised: list[BaseException] = []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            made.append(make())
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            raised.append(error)

    ensure_running()  # the resource tracker unblocks the signal when it starts
    before = set(multiprocessing.active_children())
    thread = threading.Thread(target=run, name="alloop-cluster", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK)
    except KeyboardInterrupt:
        _kill_new(before, thread)
        raise
    if raised:
        raise raised[0]
    return made[0]


def _kill_new(before: set[Any], thread: threading.Thread) -> None:
    """Kill the processes that `thread` starts, until it ends or a time limit."""
    until = time.monotonic() + _GIVE_UP
    while thread.is_alive() and time.monotonic() < until:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        thread.join(_LOOK)


def _worker_pids(cluster: Any) -> list[int]:
    nannies = [] if cluster is None else list(cluster.workers.values())
    return [nanny.pid for nanny in nannies if getattr(nanny, "pid", None)]


@contextlib.contextmanager
def _free_workers_only() -> Iterator[None]:
    """Make a scheduler that starts here give a task to a free worker only.

    A task queued behind an expensive label could have run on another worker.
    """
    import dask

    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        yield


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """Silence the warnings of Dask about ports and closing workers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
