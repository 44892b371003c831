"""Workers as jobs of a batch system, with the scheduler in this process.

Each group has its own kind of job, and as many jobs as there is work for. dask-jobqueue
writes and submits the job scripts; its clusters have one kind of job each, so the
groups share a `SpecCluster`, whose workers may differ. A worker is removed only after
it has been idle for a while, never in the middle of a label.
"""

import asyncio
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler, Security
from distributed.core import Status
from distributed.deploy.spec import SpecCluster

from alloop.core.errors import InputError
from alloop.store.files import refuse_link, refuse_links
from alloop.workers import spool
from alloop.workers.batch_systems import BATCH_SYSTEMS, listing_command
from alloop.workers.cluster_plan import DASK_SETTINGS, BatchPlan, TlsFiles
from alloop.workers.time_limits import LIFE, UNTIL, TimeLimit

KEYS = "tls"  # the folder of a run's credentials
_QUERY = 20.0  # s between two queries of the batch system
_REFUSALS = 5  # consecutive failed submissions before giving up
_JOIN = 120  # s that a worker tries to reach its scheduler


class _ClosingJob:
    """A job that sets its status to closed once it is cancelled."""

    submit_command: str

    async def close(self) -> None:
        await super().close()  # type: ignore[misc]
        self.status = Status.closed

    async def _submit_job(self, script: str) -> str:
        """Submit a script, as standard input where the system wants that.

        dask-jobqueue would hide what a system that reads standard input complains of.
        """
        if not getattr(self, "use_stdin", False):
            return str(await super()._submit_job(script))  # type: ignore[misc]
        line = f"{self.submit_command} < {shlex.quote(script)}"
        return str(await self._call([line], shell=True))  # type: ignore[attr-defined]


@cache
def _job_class(path: str) -> type:
    """Return dask-jobqueue's class of jobs at an import path, with a status at last."""
    module, _, name = path.partition(":")
    base = getattr(import_module(module), name)
    return type(f"_Closing{name}", (_ClosingJob, base), {})


def start_scheduler(batch: BatchPlan, folder: Path) -> "BatchJobs":
    """Start a scheduler without jobs; logs and credentials go to `folder`."""
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    security = new_credentials(folder) if batch.tls else None
    return BatchJobs(batch, folder, security)


def new_credentials(folder: Path) -> Security:
    """Make credentials for one run, in files that only this user may read.

    Those of an earlier run that was killed are removed first.
    """
    fresh = Security.temporary()
    private = folder / KEYS
    remove_credentials(folder)
    private.mkdir(mode=0o700)
    texts = {"ca": fresh.tls_ca_file, "cert": fresh.tls_client_cert}
    for name, text in {**texts, "key": fresh.tls_client_key}.items():
        path = private / f"{name}.pem"
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text)
    files = (str(private / f"{name}.pem") for name in ("ca", "cert", "key"))
    return TlsFiles(*files).security()


def remove_credentials(folder: Path) -> None:
    """Remove a run's credentials, or whatever else has their path."""
    private = folder / KEYS
    if private.is_dir() and not private.is_symlink():
        shutil.rmtree(private)
    else:
        private.unlink(missing_ok=True)


def job_spec(
    batch: BatchPlan, resource: str, folder: Path, security: Security | None = None
) -> dict[str, Any]:
    """Return the spec of a group's jobs for a SpecCluster: `cls` and its `options`."""
    group, system = batch.groups[resource], BATCH_SYSTEMS[batch.system]
    demanded, lines = system.demand(group, batch.site_names)
    place = shlex.quote(str(folder.absolute()))  # no shell reads it, but quotes count
    name = f"alloop-{resource.lower()}"
    options = {
        "queue": batch.queue,
        system.account: batch.account,
        "walltime": system.walltime(batch.walltime),
        "cores": group.tasks,  # a thread each
        "processes": group.tasks,
        "memory": f"{group.memory:.0f}MB",
        "interface": batch.interface,
        "job_name": name,
        "death_timeout": _JOIN,
        "job_script_prologue": [
            *_time_limit_options(batch.walltime),
            *_dask_options(),
            *batch.prologue,
        ],
        "python": shlex.quote(sys.executable),
        "worker_extra_args": [
            *_worker_arguments(batch, resource),
            *_tls_arguments(security),
        ],
        "protocol": None if security is None else "tls://",
        "job_extra_directives": [
            *system.log_options(place, name),
            *batch.directives,
            *lines,
        ],
    }
    return {"cls": _job_class(system.job_class), "options": options | demanded}


def _tls_arguments(security: Security | None) -> list[str]:
    """Return the TLS options of the worker command, quoted for a shell."""
    if security is None:
        return []
    files = security.get_tls_config_for_role("worker")
    names = ("ca_file", "cert", "key")
    pairs = [(f"--tls-{name.replace('_', '-')}", files[name]) for name in names]
    return [shlex.quote(word) for pair in pairs for word in pair]


def _worker_arguments(batch: BatchPlan, resource: str) -> list[str]:
    useful = TimeLimit(0.0, batch.walltime).useful_seconds
    spare = batch.walltime - useful
    arguments = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    arguments += ["--preload", spool.__name__]
    arguments += ["--lifetime", f"{useful + spare / 4:.0f}s"]
    arguments += ["--lifetime-stagger", f"{spare / 4:.0f}s"]
    apart = len(batch.groups) > 1
    return arguments + ["--resources", f"{resource}=1"] * apart


def _time_limit_options(walltime: float) -> list[str]:
    """Return the script lines that tell a worker when its job ends."""
    return [
        f"export {LIFE}={walltime:.0f}",
        f"export {UNTIL}=$(( $(date +%s) + {walltime:.0f} ))",
    ]


def _dask_options() -> list[str]:
    """Return the script lines that give a worker the settings of Dask."""
    lines = []
    for key, value in DASK_SETTINGS.items():
        name = key.upper().replace(".", "__").replace("-", "_")
        lines.append(f"export DASK_{name}={shlex.quote(str(value))}")
    return lines


class BatchJobs(SpecCluster):  # type: ignore[misc]
    """A Dask scheduler and its batch jobs."""

    def __init__(
        self, batch: BatchPlan, folder: Path, security: Security | None
    ) -> None:
        self._batch, self._folder, self._number = batch, folder, 0
        self._specs = {
            resource: job_spec(batch, resource, folder, security)
            for resource in batch.groups
        }
        self._last_busy: dict[str, float] = {}  # last time a job was seen working
        self._queried, self._refused = time.monotonic(), 0
        scheduler = {
            "interface": batch.interface,
            "protocol": "tcp://" if security is None else "tls://",
            "security": security,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        with dask.config.set(DASK_SETTINGS):
            super().__init__(
                scheduler={"cls": Scheduler, "options": scheduler},
                security=security,
                silence_logs=logging.CRITICAL,
                name="alloop",
            )

    def scale_jobs(self, tasks: Mapping[str, int]) -> None:
        """Submit jobs for the number of tasks by resource; release idle jobs.

        Jobs that ended are removed. Raises InputError after several refusals by the
        batch system in a row.
        """
        try:
            self.sync(self._update_jobs, dict(tasks))
            self._refused = 0
        except RuntimeError as error:
            self._refused += 1
            self.sync(self._forget_refused)
            if self._refused >= _REFUSALS:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"expected {self._batch.system} to take a job, it refused: "
                    f"{reason}; see `cluster:` in the campaign"
                ) from error

    async def _update_jobs(self, tasks: Mapping[str, int]) -> None:
        await self.scale_down(await self._ended_jobs())
        for resource, group in self._batch.groups.items():
            need = ceil(tasks.get(resource, 0) / group.tasks)
            target = min(group.maximum, max(group.minimum, need))
            await self._fit_group(resource, target)
        await self

    async def _fit_group(self, resource: str, target: int) -> None:
        jobs = [name for name in self.worker_spec if name.startswith(f"{resource}-")]
        for _ in range(target - len(jobs)):
            self._number += 1
            self.worker_spec[f"{resource}-{self._number}"] = self._specs[resource]
        spare = len(jobs) - target
        if spare > 0:
            await self.scale_down(self._idle_jobs(jobs)[:spare])

    def _idle_jobs(self, names: Iterable[str]) -> list[str]:
        """Return the jobs that wait in the queue, then the idle ones."""
        now, waiting, idle = time.monotonic(), [], []
        for name in names:
            workers = [
                w for w in self.scheduler.workers.values() if _belongs_to(w.name, name)
            ]
            if any(worker.processing for worker in workers):
                self._last_busy[name] = now
            elif not workers:
                waiting.append(name)
            elif now - self._last_busy.setdefault(name, now) > self._batch.idle:
                idle.append(name)
        return [*waiting, *idle]

    async def _ended_jobs(self) -> list[str]:
        """Return the jobs that ended, by walltime, cancellation or crash."""
        gone = [name for name in self.worker_spec if name not in self.workers]
        if time.monotonic() - self._queried < _QUERY:
            return gone
        self._queried = time.monotonic()
        for name, worker in self.workers.items():
            if not await self._is_listed(worker.job_id):
                gone.append(name)
        return gone

    async def _is_listed(self, job_id: str) -> bool:
        """Return True if the batch system still lists the job, or does not answer."""
        system = BATCH_SYSTEMS[self._batch.system]
        process = await asyncio.create_subprocess_exec(
            *listing_command(system, job_id),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return system.is_listed(process.returncode, out.decode(), job_id)

    async def _close(self) -> None:
        await super()._close()
        remove_credentials(self._folder)

    async def _forget_refused(self) -> None:
        for name, worker in list(self.workers.items()):
            if worker.job_id is None:
                worker.status = Status.failed
                self.worker_spec.pop(name, None)
                del self.workers[name]


def _belongs_to(worker: Any, job_name: str) -> bool:
    return str(worker) == job_name or str(worker).startswith(f"{job_name}-")
