"""Processes to be killed: a server of forks, drivers, and clusters of Dask."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import psutil

from alloop.store.journal import FOLDER
from alloop.store.packs import list_journal
from benchmarks.durability.toy_campaign import LABEL_LOG

_ROOT = Path(__file__).parents[2]
_SERVER = """
import os, sys
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        work(line.strip())
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a child process that can import this package."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    threads = {"OMP_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONPATH": path, **variables}


class ForkServer:
    """A process that forks children, one at a time, which run `work(argument)`.

    script: Python source that defines `work`; it is run once, so that children pay for
    no imports. The server is closed with `close`. variables: of its environment.
    """

    def __init__(self, script: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script + _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(**variables),
        )

    def spawn(self, argument: str | Path) -> int:
        """Start a child and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{argument}\n")
        self._process.stdin.flush()
        return int(self._read_line())

    def kill(self, pid: int) -> None:
        """Kill the child with SIGKILL and wait for its end."""
        os.kill(pid, signal.SIGKILL)
        self._read_line()

    def wait(self) -> int:
        """Wait for the child's end and return its wait status, 0 for success."""
        return int(self._read_line())

    def close(self) -> None:
        """End the server."""
        self._process.communicate()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


Process: TypeAlias = subprocess.Popen[bytes]
TIME_LIMIT = 300.0  # s


def start_driver(campaign: Path) -> Process:
    """Start `alloop run` on a campaign file, in a session of its own.

    The toy campaign's labels are logged beside it, in labels.log.
    """
    log = campaign.with_name("labels.log")
    return subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(campaign), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(**{LABEL_LOG: str(log)}),
    )


def finish_campaign(campaign: Path) -> str:
    """Run a campaign to its end; return what went wrong, "" if nothing did."""
    driver = start_driver(campaign)
    _, error = driver.communicate(timeout=TIME_LIMIT)
    return describe_exit(driver.returncode, error)


def describe_exit(code: int, error: bytes) -> str:
    """Return "" for success, else the exit code and the end of standard error."""
    return f"exit {code}: {error.decode()[-300:]}" if code else ""


def count_records(campaign: Path) -> int:
    """Count the records in the journal of a campaign's store, toy.zarr."""
    folder = campaign.with_name("toy.zarr") / FOLDER
    with contextlib.suppress(FileNotFoundError):
        return list_journal(folder).last + 1
    return 0


def wait_until(condition: Callable[[], bool], seconds: float = TIME_LIMIT) -> bool:
    """Wait until the condition is true; return False if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True


def find_workers(pid: int) -> list[psutil.Process]:
    """Return the Dask workers among the children of a process."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [
            child for child in children if "spawn_main" in " ".join(child.cmdline())
        ]
    except psutil.NoSuchProcess:
        return []


@dataclass(slots=True)
class ExternalCluster:
    """A Dask scheduler and two nannies with a worker each, all processes of their own.

    log: the file in which the toy campaign's labels are logged.
    """

    log: Path
    port: int
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start whatever does not run."""
        local = ("--host", "127.0.0.1", "--no-dashboard")
        self._start("scheduler", (*local, "--port", str(self.port)))
        worker = ("--nworkers", "1", "--nthreads", "1", "--no-dashboard")
        for name in ("nanny0", "nanny1"):
            self._start(name, (self.address, "--host", "127.0.0.1", *worker))

    def _start(self, name: str, options: Sequence[str]) -> None:
        process = self.processes.get(name)
        if process is None or process.poll() is not None:
            kind = "scheduler" if name == "scheduler" else "worker"
            module = f"distributed.cli.dask_{kind}"
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment(**{LABEL_LOG: str(self.log)}),
            )

    def kill(self, names: Sequence[str]) -> None:
        """Kill some; the worker of a nanny may end with it or stay."""
        for name in names:
            self.processes[name].kill()
            self.processes[name].wait()

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes of the nannies."""
        nannies = (self.processes[name] for name in ("nanny0", "nanny1"))
        return [worker for nanny in nannies for worker in find_workers(nanny.pid)]

    def close(self) -> None:
        """Kill everything."""
        workers = self.workers()
        self.kill(list(self.processes))
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
