"""Plans of a cluster: where the tasks of a run are carried out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Dask opens a port for web pages on each process; without routes it shows nothing. Its
# checks of itself, every 10 to 100 ms by default, would take 5 % of the driver's core.
DASK_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
LABEL, LEARN = "LABEL", "LEARN"  # Dask resources of separate kinds of workers


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files with the credentials for a scheduler that uses TLS."""

    ca: str
    cert: str
    key: str

    def security(self) -> Any:
        """Return Dask's Security with the same credentials for every role."""
        from distributed import Security

        roles = ("client", "scheduler", "worker")
        pairs = {f"tls_{role}_cert": self.cert for role in roles}
        pairs |= {f"tls_{role}_key": self.key for role in roles}
        return Security(require_encryption=True, tls_ca_file=self.ca, **pairs)


@dataclass(frozen=True, slots=True)
class JobGroup:
    """Jobs of one kind.

    cores, memory (MB), gpus: of a job. tasks: worker processes in it, each for one task
    at a time. minimum, maximum: limits on the number of jobs.
    """

    cores: int
    memory: float
    tasks: int
    gpus: int = 0
    minimum: int = 0
    maximum: int = 1


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Workers as jobs of a batch system.

    system: its kind, such as `slurm`. walltime: s, of a job. interface: the network
    interface that scheduler and workers listen on. tls: encrypt, with credentials made
    for this run alone. idle: s without work after which a job is released. directives:
    lines for the head of the job script; prologue: lines before the worker starts.
    site_names: words that the site chose, by key. groups: jobs by the resource of their
    workers; a single group does everything.
    """

    system: str
    walltime: float
    groups: Mapping[str, JobGroup]
    queue: str | None = None
    account: str | None = None
    interface: str | None = None
    tls: bool = True
    idle: float = 300.0
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    site_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The kind of cluster that carries out the tasks, and its settings.

    kind: "local" (embedded processes), "inline" (this process), "address" (a running
    scheduler), or that of a batch system. workers: processes of a local cluster, None
    for one per core; adaptive: the fewest and most of them where their number follows
    the tasks; gpus: those among them that have a card each and learn, while the
    others make labels. tls: credentials for the scheduler at the address; apart: True
    if its workers have the resources LABEL and LEARN; asked: resources of other names
    that tasks of either kind ask for there. folder: for job logs and credentials, on a
    disk that all nodes share.
    """

    kind: str = "local"
    workers: int | None = None
    adaptive: tuple[int, int] | None = None
    address: str | None = None
    tls: TlsFiles | None = None
    apart: bool = False
    asked: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gpus: int = 0
    batch: BatchPlan | None = None
    folder: Path = field(default_factory=Path)

    @property
    def separate(self) -> bool:
        """True if labels and learning have separate workers."""
        groups = () if self.batch is None else self.batch.groups
        return self.apart or self.gpus > 0 or len(groups) > 1

    def resources(self, kind: str) -> Mapping[str, float] | None:
        """Return what a task of a kind, LABEL or LEARN, asks of its worker."""
        resource = {kind: 1.0} if self.separate else {}
        return {**resource, **self.asked.get(kind, {})} or None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
