"""Ways to a Dask scheduler: an own one with its workers, or somebody's."""

import contextlib
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.resource_tracker import ensure_running
from typing import Any

from alloop.core.errors import InputError
from alloop.loop.places import ClusterPlan, Credentials, cores

_HERE = "127.0.0.1"
_TEND = 10.0  # s between two looks at the jobs of a batch system


@dataclass(slots=True)
class Link:
    """A client, and the cluster behind it where that is ours to end."""

    client: Any
    cluster: Any = None
    _tended: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether the scheduler answers."""
        running = self.client.status == "running"
        mine = self.cluster is None or self.cluster.status.name == "running"
        scheduler = getattr(self.cluster, "scheduler", None)
        return running and mine and (scheduler is None or _serves(scheduler))

    def tend(self, tasks: Mapping[str, int]) -> None:
        """Let an own cluster grow or shrink with what there is to do, by resource."""
        tend = getattr(self.cluster, "tend", None)
        if tend is not None and time.monotonic() - self._tended > _TEND:
            self._tended = time.monotonic()
            tend(tasks)

    def end(self) -> None:
        """Let go of a foreign cluster; end an own one with all its processes."""
        closing = contextlib.suppress(OSError, RuntimeError)  # it may be half dead
        with _quiet():
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
        if not _serves(self.cluster.scheduler):  # it would be asked to end for long
            self.cluster.shutdown_scheduler = False
        self.cluster.close(timeout=20)


def connect(plan: ClusterPlan) -> Link:
    """The scheduler that the plan describes, started where it is ours to start.

    Raises InputError where nothing answers, or a batch system refuses.
    """
    match plan.kind:
        case "address":
            return Link(_client(plan))
        case "slurm" | "pbs":
            return _batch(plan)
        case _:
            return _local(plan)


def _client(plan: ClusterPlan) -> Any:
    from distributed import Client

    try:
        security = None if plan.tls is None else secured(plan.tls)
        return Client(plan.address, timeout=10, set_as_default=False, security=security)
    except (OSError, RuntimeError, ValueError, TypeError) as error:  # of TLS, the last
        raise InputError(
            f"expected a Dask scheduler at {plan.address}, nothing answered there "
            f"({_short(error)}); start one, give its `tls:` files if it speaks TLS, or "
            "use `cluster: {kind: local}`"
        ) from error


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def secured(tls: Credentials) -> Any:
    """The same credentials for every role."""
    from distributed import Security

    roles = ("client", "scheduler", "worker")
    pairs = {f"tls_{role}_cert": tls.cert for role in roles}
    pairs |= {f"tls_{role}_key": tls.key for role in roles}
    return Security(require_encryption=True, tls_ca_file=tls.ca, **pairs)


def _local(plan: ClusterPlan) -> Link:
    from distributed import Client, LocalCluster

    with _quiet(), _at_hand(), deaf():
        cluster = LocalCluster(
            n_workers=plan.workers or cores(),
            threads_per_worker=1,
            processes=True,
            host=_HERE,
            dashboard_address=f"{_HERE}:0",
            worker_dashboard_address=f"{_HERE}:0",
            silence_logs=logging.CRITICAL,
        )
    return Link(Client(cluster, set_as_default=False), cluster)


def _batch(plan: ClusterPlan) -> Link:
    from distributed import Client

    try:
        from alloop.loop.jobs import start
    except ImportError as error:
        raise InputError(
            f"`cluster: {{kind: {plan.kind}}}` needs the package {error.name}, which "
            "is not here: pip install 'alloop[jobqueue]'"
        ) from error
    assert plan.batch is not None
    with _quiet(), _at_hand(), deaf():
        cluster = start(plan.batch, plan.folder)
    return Link(Client(cluster, set_as_default=False), cluster)


def _serves(scheduler: Any) -> bool:
    return bool(scheduler.status.name == "running")


@contextlib.contextmanager
def deaf() -> Iterator[None]:
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


@contextlib.contextmanager
def _at_hand() -> Iterator[None]:
    """A scheduler that starts here gives a worker no task before it is free: one that
    waits behind an expensive label would be idle elsewhere."""
    import dask

    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask warns about ports and tells of every worker it closes; nobody asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
