"""The child process, asked and answered by pipe: `-m alloop.labels.child PARENT`.

It reads requests from standard input and answers on a private copy of standard output;
the public one leads to standard error, so that no library can write into an answer.
It ends when its pipe closes or its parent dies, and never imports torch, whose OpenMP
would share the process with PySCF's. An exception nobody foresaw ends it too: its
traceback is what the parent reports.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.core.records import Failure, Unlabelled
from alloop.labels.direct import label_frame, located, program
from alloop.labels.wire import Message, asked, encode, receive, tell

CHECKS = {
    "pyscf": "alloop.labels.pyscf.check:problems",
    "ase": "alloop.labels.ase:problems",
    "toy": "alloop.labels.toy:problems",
}
_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Serve until the pipe closes."""
    die_with(int(sys.argv[1]))
    requests, answers = _private_streams()

    def say(message: Message) -> None:
        answers.write(encode(message))
        answers.flush()

    while (request := receive(requests)) is not None:
        answer(request, say)


def answer(request: Message, say: Callable[[Message], None]) -> None:
    """Do what a request asks; `began` is said once the slow imports are behind."""
    if request.header["ask"] == "check":
        say(Message({"say": "began"}))
        say(Message({"say": "problems", "problems": _problems(request)}))
        return
    level, frame = asked(request)
    try:
        program(level.kind)
    except InputError as error:
        why = (Failure.UNSUPPORTED, str(error))
        say(tell(Unlabelled(frame.id, level.id, *why)))
        return
    say(Message({"say": "began"}))
    say(tell(label_frame(level, frame)))


def die_with(parent: int) -> None:
    """Tie the life of this process to the process `parent`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we could ask for the signal
        os._exit(1)


def watch(parent: int, seconds: float = 1.0) -> None:
    """End this process once `parent` is no longer its parent, for want of a signal."""
    while os.getppid() == parent:
        time.sleep(seconds)
    os._exit(1)


def _problems(request: Message) -> list[str]:
    level = Level(request.header["kind"], request.header["text"])
    try:
        program(level.kind)
    except InputError as error:
        return [str(error)]
    if level.kind not in CHECKS:
        return []
    check = located(CHECKS[level.kind])
    found: list[str] = check(level.settings, request.header["elements"])
    return found


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


if __name__ == "__main__":
    main()
