"""The cause of a child's end, from its exit code, its messages and its memory."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from alloop.core.records import Failure
from alloop.labels.child.scratch import disk_error
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
