"""A child process that is started, exchanges messages under limits, and is ended.

The cause of its end is told from its exit code, its messages and its memory.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alloop.core.records import Failure
from alloop.core.settings import setting
from alloop.labels.child import memory
from alloop.labels.child.messages import (
    GarbledMessage,
    Message,
    decode_message,
    encode_message,
)
from alloop.labels.child.scratch import (
    SETTINGS,
    STARTED_IN,
    ScratchFolder,
    disk_error,
    started_in,
)
from alloop.labels.child.supervisor import SIGNALLED

EXITED = "exit code"  # begins the message if no signal ended the child
_HIGH = 0.8  # of the memory limit, above which a SIGKILL is attributed to memory
_LINES = 12  # of standard error that are reported
_FATAL = "Fatal Python error"  # faulthandler: the innermost call comes first


class ChildEnded(Exception):
    """The error that a child died or was killed while it worked on a request.

    fresh: True if it had answered no request before.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        cpu_seconds: float = 0.0,
        fresh: bool = True,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.cpu_seconds = cpu_seconds
        self.fresh = fresh


@dataclass(frozen=True, slots=True)
class ChildRemains:
    """The facts known about a child that has ended.

    code: its exit code as a shell reports it; stderr: the lines of its standard error;
    memory_mb: its last measured memory; limit_mb: its memory limit; oom: the number of
    processes that the kernel killed for lack of memory meanwhile.
    """

    code: int
    stderr: Sequence[str] = ()
    memory_mb: float = 0.0
    limit_mb: float = float("inf")
    oom: int = 0


def exit_cause(remains: ChildRemains) -> tuple[Failure, str]:
    """Return the failure and a sentence that explains it.

    A SIGKILL is attributed to memory if the kernel's count of out-of-memory kills rose,
    or if the child was near its limit: whatever else kills a child then presumably does
    so for its memory.
    """
    how = _exit_text(remains.code)
    at = f"{how} at {remains.memory_mb:.0f} MB"
    text = " | ".join([how, *_last_lines(remains.stderr)])
    if trouble := disk_error("\n".join(remains.stderr)):
        return Failure.DISK, f"{trouble} ({how})"
    if how != signal.SIGKILL.name:
        return Failure.CRASHED, text
    if remains.oom:
        return Failure.MEMORY, f"{at}, by the kernel: the machine was out of memory"
    if remains.memory_mb > _HIGH * remains.limit_mb:
        limit = f"the limit of {remains.limit_mb:.0f} MB"
        return Failure.MEMORY, f"{at}, near {limit}, presumably for its memory"
    return Failure.CRASHED, f"{text} | it was killed from outside"


def _last_lines(lines: Sequence[str]) -> Sequence[str]:
    fatal = [i for i, line in enumerate(lines) if line.startswith(_FATAL)]
    return lines[fatal[0] :][:_LINES] if fatal else lines[-_LINES:]


def _exit_text(code: int) -> str:
    try:
        return signal.Signals(code - SIGNALLED).name
    except ValueError:
        return f"{EXITED} {code}"


_POLL = 0.1  # s between checks of memory and time while a label runs
_TAIL = 4000  # bytes of standard error that are kept
_PATIENCE = 5.0  # s to wait for an orderly end
_ONE_THREAD = ("OMP", "MKL", "OPENBLAS", "VECLIB_MAXIMUM", "NUMEXPR")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of time and memory of a label, and the number of labels of a child.

    memory_mb: resident, of the child and its descendants; start_seconds: time to start
    the child and import its program; labels: number that a child makes before it is
    replaced (quantum chemistry leaks memory).
    """

    seconds: float = setting(
        3600.0, "most wall time of a label, s", key="label_time", gt=0
    )
    memory_mb: float = setting(
        8000.0, "most memory of a label, MB", key="label_memory", gt=0
    )
    start_seconds: float = 300.0
    labels: int = 500


class ChildProcess:
    """A running child with its supervisor and the pipes to it."""

    def __init__(self, limits: Limits) -> None:
        self._scratch = ScratchFolder()
        try:
            self._process = _start_child(self._scratch, limits)
        except BaseException:
            self._scratch.remove()
            raise
        self.answers = 0
        self._limits = limits
        self._cpu = self._memory_mb = 0.0  # s and MB, as last measured
        self._inbox = bytearray()
        self._stderr_tail = b""
        self._outbox = b""
        self._stdin = _checked_pipe(self._process.stdin)
        self._stdout = _checked_pipe(self._process.stdout)
        self._stderr = _checked_pipe(self._process.stderr)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._stderr, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The supervisor's process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def is_sound(self) -> bool:
        """True if the child is alive and has sent no unrequested output."""
        if self._process.poll() is not None or self._inbox:
            return False
        ready = self._selector.select(0)
        return not any(key.fileobj is self._stdout for key, _ in ready)

    @property
    def memory_mb(self) -> float:
        """The resident memory of all its processes in MB; 0 after they have ended."""
        return memory.used_memory_and_cpu(self._process_tree())[0]

    def exchange(self, request: Message) -> Message:
        """Return the answer to a request.

        Raises `ChildEnded` if none comes; the caller must then kill the child. The time
        limit of a label starts when the child reports that it began.
        """
        self._stderr.read()  # discard output from earlier requests
        self._outbox, self._stderr_tail = encode_message(request), b""
        self._oom = memory.oom_kills()
        before, seconds = 0.0, self._limits.start_seconds
        try:
            while True:
                message = self._next_message(time.monotonic() + seconds, seconds)
                if message.header.get("say") != "began":
                    self.answers += 1
                    return message
                before, seconds = self._cpu, self._limits.seconds
        except ChildEnded as ended:
            cost, fresh = max(0.0, self._cpu - before), self.answers == 0
            raise ChildEnded(ended.failure, ended.message, cost, fresh) from None

    def close(self) -> None:
        """Ask the child to end, and kill it if it does not."""
        self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_PATIENCE)
        self.kill()

    def kill(self) -> None:
        """Kill the child and every process that it started."""
        for number in (signal.SIGTERM, signal.SIGCONT):  # it may have been stopped
            self._process.send_signal(number)
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:  # the supervisor hangs, too
            for pid in (*memory.descendants(self.pid), self.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()
        self._scratch.remove()

    def _next_message(self, deadline: float, seconds: float) -> Message:
        while (decoded := self._decoded()) is None:
            self._write()
            self._read()
            self._check_limits(deadline, seconds)
        message, size = decoded
        del self._inbox[:size]
        return message

    def _decoded(self) -> tuple[Message, int] | None:
        try:
            return decode_message(self._inbox)
        except GarbledMessage as error:
            raise ChildEnded(Failure.CRASHED, f"the child's pipe: {error}") from error

    def _write(self) -> None:
        if not self._outbox:
            return
        try:
            sent = os.write(self._stdin.fileno(), self._outbox)
        except BlockingIOError:
            return
        except BrokenPipeError:
            raise self._death_report() from None
        self._outbox = self._outbox[sent:]

    def _read(self) -> None:
        wait = 0.001 if self._outbox else _POLL
        for key, _ in self._selector.select(wait):
            data = os.read(key.fd, 1 << 20)
            if key.fileobj is self._stderr:
                self._stderr_tail = (self._stderr_tail + data)[-_TAIL:]
                if not data:
                    self._selector.unregister(key.fileobj)
            elif data:
                self._inbox += data
            else:
                raise self._death_report()

    def _check_limits(self, deadline: float, seconds: float) -> None:
        family, limit = self._process_tree(), self._limits.memory_mb
        used, cpu = memory.used_memory_and_cpu(family)
        if used:  # 0 after the child has died, which the closed pipe reports
            self._memory_mb, self._cpu = used, max(cpu, self._cpu)
        if used > limit and (used := memory.unshared_mb(family)) > limit:
            text = f"{used:.0f} MB of memory, the limit is {limit:.0f} MB"
            raise ChildEnded(Failure.MEMORY, text)
        if time.monotonic() > deadline:
            raise ChildEnded(Failure.TIMEOUT, f"no answer within {seconds:g} s")

    def _process_tree(self) -> list[int]:
        return [self.pid, *memory.descendants(self.pid)]

    def _death_report(self) -> ChildEnded:
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return ChildEnded(Failure.CRASHED, "the child closed its pipe and lived on")
        tail = (self._stderr_tail + (self._stderr.read() or b""))[-_TAIL:]
        lines = tail.decode(errors="replace").splitlines()
        oom = memory.oom_kills() - self._oom
        remains = ChildRemains(
            code, lines, self._memory_mb, self._limits.memory_mb, oom
        )
        return ChildEnded(*exit_cause(remains))


def _checked_pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("expected a process that was started with pipes")
    os.set_blocking(stream.fileno(), False)
    return stream


def _start_child(scratch: ScratchFolder, limits: Limits) -> "subprocess.Popen[bytes]":
    """Start the supervisor of a new child, in its own session; may raise OSError.

    It works in an empty folder of its own.
    """
    module = "alloop.labels.child.supervisor"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **_child_environment(scratch.folder, limits)},
        cwd=scratch.empty,
        start_new_session=True,
    )


def _child_environment(scratch: Path, limits: Limits) -> dict[str, str]:
    """Return the environment variables of a child.

    They set one thread, the memory limit, this process's import path, the scratch
    folder, and PySCF's configuration file to the one there.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
    return {
        **threads,
        memory.ALLOWED: f"{limits.memory_mb:g}",
        "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path),
        "PYTHONFAULTHANDLER": "1",
        STARTED_IN: str(started_in()),
        "PYSCF_CONFIG_FILE": str(scratch / SETTINGS),
        "PYSCF_TMPDIR": str(scratch),
        "TMPDIR": str(scratch),
    }
