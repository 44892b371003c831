"""A Dask cluster that is somebody else's, as processes of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import psutil

from benchmarks.toys import TALLY

Driver: TypeAlias = subprocess.Popen[bytes]


@dataclass(slots=True)
class Theirs:
    """A scheduler and two workers with nannies, each a process of its own."""

    notes: Path
    port: int
    processes: dict[str, Driver] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    def ensure(self) -> None:
        """Start what is not there."""
        here = ("--host", "127.0.0.1", "--no-dashboard")
        self._ensure("scheduler", (*here, "--port", str(self.port)))
        one = ("--nworkers", "1", "--nthreads", "1", "--no-dashboard")
        for name in ("nanny0", "nanny1"):
            self._ensure(name, (self.address, "--host", "127.0.0.1", *one))

    def _ensure(self, name: str, options: Sequence[str]) -> None:
        process = self.processes.get(name)
        if process is None or process.poll() is not None:
            kind = "scheduler" if name == "scheduler" else "worker"
            module = f"distributed.cli.dask_{kind}"
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, TALLY: str(self.notes), "OMP_NUM_THREADS": "1"},
            )

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL some; the worker of a nanny goes with it or is left to itself."""
        for name in names:
            self.processes[name].kill()
            self.processes[name].wait()

    def workers(self) -> list[psutil.Process]:
        """The worker processes beneath the nannies."""
        nannies = (self.processes[name] for name in ("nanny0", "nanny1"))
        return [child for nanny in nannies for child in workers_of(nanny)]

    def end(self) -> None:
        """Kill all."""
        family = self.workers()
        self.kill(list(self.processes))
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def workers_of(process: Driver) -> list[psutil.Process]:
    """The Dask workers among a process's children."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    except psutil.NoSuchProcess:
        return []
