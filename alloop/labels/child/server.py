"""The child process that makes labels and talks to the worker through pipes.

It reads requests from standard input and answers on a private copy of standard output;
standard output itself leads to standard error, so that no library can write into an
answer. It ends when its pipe closes or its parent dies
(`alloop.labels.child.supervisor`). It never imports torch by itself, whose OpenMP would
share the process with PySCF's. An unexpected exception ends it too, and the worker
reports its traceback.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.messages import (
    Message,
    encode_message,
    outcome_message,
    parse_label_request,
    receive_message,
)
from alloop.labels.child.scratch import disk_error
from alloop.labels.direct import import_function, label_frame, level_program, takes
from alloop.labels.programs import program_of
from alloop.labels.tolerances import gate_problems


def serve_requests() -> None:
    """Answer requests until the pipe closes."""
    requests, answers = _private_streams()

    def send(message: Message) -> None:
        answers.write(encode_message(message))
        answers.flush()

    while (request := receive_message(requests)) is not None:
        answer_request(request, send)


def answer_request(request: Message, send: Callable[[Message], None]) -> None:
    """Carry out a request and send the answers with `send`.

    `began` is sent before a label is made, after the slow imports, so that they do not
    count as its time; a check has the time of a start.
    """
    if request.header["ask"] == "check":
        send(Message({"say": "problems", "problems": _level_problems(request)}))
        return
    level, frame = parse_label_request(request)
    try:
        level_program(level)
    except InputError as error:
        why = (Failure.UNSUPPORTED, str(error))
        send(outcome_message(Unlabelled(frame.id, level.id, *why)))
        return
    send(Message({"say": "began"}))
    send(outcome_message(_label_safely(level, frame)))


def _label_safely(level: Level, frame: Frame) -> Label | Unlabelled:
    """Return the label, or an Unlabelled with the reason DISK if the disk failed.

    Disk errors in destructors, which Python does not raise, count as well. Any other
    exception of a program is a bug and ends the child.
    """
    disk_errors: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, _disk_error_hook(disk_errors)
    try:
        outcome = label_frame(level, frame)
        trouble = next(iter(disk_errors), None)
    except (OSError, RuntimeError) as error:
        trouble = disk_error(str(error))
        if trouble is None:
            raise
    finally:
        sys.unraisablehook = before
    if trouble is None:
        return outcome
    return Unlabelled(frame.id, level.id, Failure.DISK, trouble)


def _disk_error_hook(errors: list[str]) -> Callable[[Any], None]:
    """Return a hook for exceptions in destructors that collects those of the disk."""
    default_hook = sys.unraisablehook

    def listen(what: Any) -> None:
        default_hook(what)
        if trouble := disk_error(f"{what.exc_value}"):
            errors.append(trouble)

    return listen


def _level_problems(request: Message) -> list[str]:
    level = Level(request.header["kind"], request.header["text"])
    try:
        run = level_program(level)
    except InputError as error:
        return [str(error)]
    if not takes(run, 2):
        return [f"expected a function (frame, settings) -> Result, got {level.kind}"]
    problems = gate_problems(level.settings)
    if checks := program_of(level).problems:
        check = import_function(checks)
        problems += check(level.settings, request.header["elements"])
    return problems


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers
