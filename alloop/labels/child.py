"""The child process that makes labels, asked and answered by pipe.

It reads requests from standard input and answers on a private copy of standard output;
the public one leads to standard error, so that no library can write into an answer.
It ends when its pipe closes or its parent dies (`alloop.labels.supervisor`), and never
imports torch by itself, whose OpenMP would share the process with PySCF's. An exception
nobody foresaw ends it too: its traceback is what the worker reports.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.direct import label_frame, located, program, takes
from alloop.labels.gate import gate_problems
from alloop.labels.scratch import disk_trouble
from alloop.labels.wire import Message, asked, encode, receive, tell

CHECKS = {
    "pyscf": "alloop.labels.pyscf.check:problems",
    "xtb": "alloop.labels.xtb:problems",
    "ase": "alloop.labels.ase:problems",
    "table": "alloop.labels.table:problems",
    "model": "alloop.labels.model:problems",
    "toy": "alloop.labels.toy:problems",
}


def serve() -> None:
    """Answer until the pipe closes."""
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
    say(tell(_labelled(level, frame)))


def _labelled(level: Level, frame: Frame) -> Label | Unlabelled:
    """The label; a disk that fails is a reason for none, also where it failed unheard.

    All else that a program raises and does not explain is a bug, and ends the child.
    """
    unheard: list[str] = []
    usual, sys.unraisablehook = sys.unraisablehook, _listener(unheard)
    try:
        outcome = label_frame(level, frame)
        trouble = next(iter(unheard), None)
    except (OSError, RuntimeError) as error:
        trouble = disk_trouble(str(error))
        if trouble is None:
            raise
    finally:
        sys.unraisablehook = usual
    if trouble is None:
        return outcome
    return Unlabelled(frame.id, level.id, Failure.DISK, trouble)


def _listener(heard: list[str]) -> Callable[[Any], None]:
    """A hook for exceptions in destructors that keeps those of the disk."""
    usual = sys.unraisablehook

    def listen(what: Any) -> None:
        usual(what)
        if trouble := disk_trouble(f"{what.exc_value}"):
            heard.append(trouble)

    return listen


def _problems(request: Message) -> list[str]:
    level = Level(request.header["kind"], request.header["text"])
    try:
        run = program(level.kind)
    except InputError as error:
        return [str(error)]
    if not takes(run, 2):
        return [f"expected a function (frame, settings) -> Result, got {level.kind}"]
    found = gate_problems(level.settings)
    if level.kind in CHECKS:
        check = located(CHECKS[level.kind])
        found += check(level.settings, request.header["elements"])
    return found


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers
