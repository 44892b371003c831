"""The parent process of a label child, which kills all that the child leaves behind.

`-m alloop.labels.child.supervisor WORKER` forks; the fork becomes the child that makes
the labels (`alloop.labels.child.server`), this process only waits. It ends when the
child does, when the worker terminates it, or when the worker dies, and then kills every
process that the child has started. Orphans, even a daemon in its own session, are
reparented to it (Linux: PR_SET_CHILD_SUBREAPER of prctl(2)), so that none escapes;
on other systems, a grandchild that leaves the process group does. It exits as a shell
does, with the child's exit code or 128 + the signal that killed it.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
SIGNALLED = 128  # exit codes above it stand for a signal


class _StopChild(Exception):
    """The exception raised when the worker has died or wants the child to end."""


def main() -> None:
    """Fork the child, wait for its end, and kill the processes that it leaves."""
    follow_worker(int(sys.argv[1]))
    me = os.getpid()
    child = os.fork()
    if child:
        sys.exit(_wait_for_child(child))
    _be_the_child(me)


def follow_worker(worker: int, seconds: float = 1.0, by_signal: bool = _LINUX) -> None:
    """Raise `_StopChild` in this process when `worker` dies or sends SIGTERM.

    Where the system has no death signal, the worker is checked every `seconds`.
    """

    def heard(number: int, _frame: object) -> None:
        # The death signal is also sent if only the thread that started us has ended.
        if number == signal.SIGTERM or os.getppid() != worker:
            raise _StopChild

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, heard)
    if by_signal:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    else:
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    if os.getppid() != worker:  # it died before the signal was set up
        os._exit(1)


def _be_the_child(supervisor: int) -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)
    from alloop.labels.child.server import (
        serve_requests,  # numpy and the rest, in the child only
    )

    serve_requests()


def _wait_for_child(child: int) -> int:
    """Wait for the end of child or worker, kill what is left, return the exit code."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # only the child holds the pipes, so they close when it dies
    os.dup2(nothing, 1)
    try:
        _, status = os.waitpid(child, 0)
    except _StopChild:
        status = int(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code


def _end_all() -> None:
    """Kill children until none is left, as those of a killed child become our own."""
    import psutil

    with suppress(ChildProcessError):
        while True:
            for process in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            os.waitpid(-1, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)


if __name__ == "__main__":
    main()
