"""One child process: start it, exchange messages under limits, end it for certain."""

import os
import selectors
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from alloop.core.records import Failure
from alloop.labels.scratch import EMPTY, Scratch
from alloop.labels.wire import Message, decode, encode

_POLL = 0.05  # s between two looks at memory and clock while a label runs
_TAIL = 4000  # bytes of standard error that are kept
_ONE_THREAD = ("OMP", "MKL", "OPENBLAS", "VECLIB_MAXIMUM", "NUMEXPR")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one label may cost, and how long a child lives.

    seconds of wall time and memory_mb of resident memory a label; start_seconds for
    starting the child and importing its program; labels a child makes before it is
    replaced (quantum chemistry leaks).
    """

    seconds: float = 3600.0
    memory_mb: float = 8000.0
    start_seconds: float = 300.0
    labels: int = 500


class Ended(Exception):
    """The child died or was killed while it was asked something."""

    def __init__(self, failure: Failure, message: str, cpu_seconds: float) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.cpu_seconds = cpu_seconds


class ChildProcess:
    """A running child process."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._process = _started(self._scratch.folder)
        self._usage = psutil.Process(self._process.pid)
        self._cpu = 0.0  # s, when last looked at
        self._inbox = bytearray()
        self._said = b""
        self._outbox = b""
        self._stdin = _pipe(self._process.stdin)
        self._stdout = _pipe(self._process.stdout)
        self._stderr = _pipe(self._process.stderr)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._stderr, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def memory_mb(self) -> float:
        """Resident memory in MB; 0 of a process that has ended."""
        try:
            return float(self._usage.memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def exchange(self, request: Message, limits: Limits) -> Message:
        """The answer to a request; raises `Ended` if none comes: then kill the child.

        The time of the label runs from the moment when the child says that it began.
        """
        self._outbox = encode(request)
        started, before, seconds = time.monotonic(), 0.0, limits.start_seconds
        try:
            while True:
                message = self._next(started + seconds, seconds, limits)
                if message.header["say"] != "began":
                    return message
                started, before, seconds = time.monotonic(), self._cpu, limits.seconds
        except Ended as ended:
            cost = max(0.0, self._cpu - before)
            raise Ended(ended.failure, ended.message, cost) from None

    def close(self) -> None:
        """Ask the child to end, and make it end."""
        self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0)
        self.kill()

    def kill(self) -> None:
        """End the child and whatever it started, now."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()
        self._scratch.remove()

    def _next(self, deadline: float, seconds: float, limits: Limits) -> Message:
        while (found := decode(self._inbox)) is None:
            self._write()
            self._read()
            self._look(deadline, seconds, limits)
        message, size = found
        del self._inbox[:size]
        return message

    def _write(self) -> None:
        if not self._outbox:
            return
        try:
            sent = os.write(self._stdin.fileno(), self._outbox)
        except BlockingIOError:
            return
        except BrokenPipeError:
            raise self._death() from None
        self._outbox = self._outbox[sent:]

    def _read(self) -> None:
        wait = 0.001 if self._outbox else _POLL
        for key, _ in self._selector.select(wait):
            data = os.read(key.fd, 1 << 20)
            if key.fileobj is self._stderr:
                self._said = (self._said + data)[-_TAIL:]
                if not data:
                    self._selector.unregister(key.fileobj)
            elif data:
                self._inbox += data
            else:
                raise self._death()

    def _look(self, deadline: float, seconds: float, limits: Limits) -> None:
        try:
            with self._usage.oneshot():
                times, memory = self._usage.cpu_times(), self.memory_mb
        except psutil.Error:
            return  # it has died; the closed pipe tells how
        self._cpu = times.user + times.system
        if memory > limits.memory_mb:
            text = f"{memory:.0f} MB of memory, the limit is {limits.memory_mb:.0f} MB"
            raise Ended(Failure.MEMORY, text, 0.0)
        if time.monotonic() > deadline:
            text = f"no answer within {seconds:g} s"
            raise Ended(Failure.TIMEOUT, text, 0.0)

    def _death(self) -> Ended:
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return Ended(Failure.CRASHED, "the child closed its pipe", 0.0)
        rest = self._stderr.read() or b""
        lines = (self._said + rest)[-_TAIL:].decode(errors="replace").splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Ended(Failure.CRASHED, " | ".join([how, *lines[-12:]]), 0.0)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("expected a process that was started with pipes")
    os.set_blocking(stream.fileno(), False)
    return stream


_starters: dict[int, ThreadPoolExecutor] = {}


def _started(folder: Path) -> "subprocess.Popen[bytes]":
    """Start a child from the one long-lived thread of this process.

    Linux's death signal follows the thread that started the child: tied to a pool's
    short-lived thread, the child would die with that.
    """
    starter = _starters.get(os.getpid())
    if starter is None:
        starter = ThreadPoolExecutor(1, thread_name_prefix="alloop-starter")
        _starters[os.getpid()] = starter
    return starter.submit(_start, folder).result()


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "alloop.labels.child", str(os.getpid())]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **_environment(folder)},
        start_new_session=True,
    )


def _environment(folder: Path) -> dict[str, str]:
    """One thread, our import path, a private scratch folder, PySCF as it came."""
    threads = {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
    return {
        **threads,
        "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path),
        "PYTHONFAULTHANDLER": "1",
        "PYSCF_CONFIG_FILE": str(folder / EMPTY),
        "PYSCF_TMPDIR": str(folder),
        "TMPDIR": str(folder),
    }
