"""Labels from a child process that is kept running and cannot bring down the worker.

| what happens in the child                             | what the label becomes |
|-------------------------------------------------------|------------------------|
| no answer in time; stopped                             | TIMEOUT               |
| its processes exceed the limit; an allocation fails;   | MEMORY                |
| SIGKILL by the kernel's OOM killer, or near the limit  |                       |
| signal, exit, exception; cannot start; garbled answer  | CRASHED               |
| the scratch disk is full                               | DISK                  |

A child that did not answer, or answered MEMORY or DISK, is replaced. A label must not
depend on what its child did before, so a crash or excess memory of a child that had
made labels already is reported only after a fresh child has repeated it.
"""

import errno
import os
import threading
import weakref
from collections.abc import Sequence

from alloop.core.errors import Interrupted
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.messages import (
    GarbledMessage,
    Message,
    label_request,
    parse_outcome,
)
from alloop.labels.child.process import ChildEnded, ChildProcess
from alloop.labels.child.process import Limits as Limits

_WORN = 0.5  # of the memory limit, resident between labels, above which to replace it
_AGAIN = (Failure.CRASHED, Failure.MEMORY)  # may be due to a child's earlier labels
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")  # not a fault of the child
_SPENT = (Failure.MEMORY.name, Failure.DISK.name)  # answers after which to replace it


class LabelChild:
    """A child that is started with the first request, and again after it has died."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        # By process id: a fork must not share the pipes.
        self._held: dict[int, ChildProcess] = {}
        self._finalizer = weakref.finalize(self, _close_children, self._held)

    @property
    def pid(self) -> int | None:
        """The process id of the child's supervisor; None while there is no child."""
        child = self._held.get(os.getpid())
        return child.pid if child is not None and child.is_sound else None

    def labeller(self, level: Level) -> "IsolatedLabeller":
        """Return a labeller of the level that uses this child."""
        return IsolatedLabeller(level, child=self)

    def ask(self, request: Message) -> Message:
        """Return the answer to a request; raise `ChildEnded` if the child died."""
        with self._lock:
            try:
                return self._send_request(request)
            except ChildEnded as ended:
                if ended.fresh or ended.failure not in _AGAIN:
                    raise
                lost = ended.cpu_seconds
            return self._retry_request(request, lost)

    def close(self) -> None:
        """End the child; the next request starts another."""
        _close_children(self._held)

    def __enter__(self) -> "LabelChild":
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _retry_request(self, request: Message, lost: float) -> Message:
        try:
            return self._send_request(request)
        except ChildEnded as ended:
            spent = ended.cpu_seconds + lost
            raise ChildEnded(ended.failure, ended.message, spent) from None

    def _send_request(self, request: Message) -> Message:
        answered = False
        try:
            answer = self._live_child().exchange(request)
            answered = answer.header.get("failure") not in _SPENT
            return answer
        except OSError as error:
            failure = Failure.DISK if error.errno == errno.ENOSPC else Failure.CRASHED
            text = f"the child could not be started or reached: {error}"
            raise ChildEnded(failure, text) from error
        finally:
            if not answered:  # its late answer would be taken for the next request's
                self._drop_child()

    def _drop_child(self) -> None:
        child = self._held.pop(os.getpid(), None)
        if child is not None:
            child.kill()

    def _live_child(self) -> ChildProcess:
        child = self._held.get(os.getpid())
        if child is not None and self._is_worn(child):
            self.close()
            child = None
        if child is None:
            child = self._held[os.getpid()] = ChildProcess(self.limits)
        return child

    def _is_worn(self, child: ChildProcess) -> bool:
        if not child.is_sound or child.answers >= self.limits.labels:
            return True
        return child.memory_mb > _WORN * self.limits.memory_mb


class IsolatedLabeller:
    """A labeller of one level in a child process, which other levels can share.

    Failures are returned as values, time and memory limits, crashes and signals
    included.
    """

    def __init__(
        self,
        level: Level,
        limits: Limits | None = None,
        child: LabelChild | None = None,
    ) -> None:
        self.level = level
        self.child = child or LabelChild(limits or Limits())

    def labeller(self, level: Level) -> "IsolatedLabeller":
        """Return a labeller of another level that uses the same child."""
        return IsolatedLabeller(level, child=self.child)

    def label(self, frame: Frame) -> Label | Unlabelled:
        """Return the label, or the reason why there is none."""
        try:
            answer = self.child.ask(label_request(self.level, frame))
            return parse_outcome(answer, frame, self.level)
        except ChildEnded as ended:
            why = (ended.failure, ended.message, ended.cpu_seconds)
        except GarbledMessage as error:
            self.close()
            why = (Failure.CRASHED, str(error), 0.0)
        return Unlabelled(frame.id, self.level.id, *why)

    def problems(self, elements: Sequence[str]) -> list[str]:
        """Return what is wrong with the level for these elements, one sentence each.

        Raises Interrupted if the child was killed from outside before it answered.
        """
        question = {
            "ask": "check",
            "kind": self.level.kind,
            "text": self.level.text,
            "elements": list(elements),
        }
        try:
            answer = self.child.ask(Message(question))
        except ChildEnded as ended:
            if text := _lasting_end(ended, self.child.limits):
                return [text]
            raise Interrupted(
                f"{self.level.title} could not be checked: the process that looked at "
                f"it ended ({ended.message}); nothing was begun, try again"
            ) from ended
        return [str(problem) for problem in answer.header["problems"]]

    def close(self) -> None:
        """End the child process."""
        self.child.close()

    def __enter__(self) -> "IsolatedLabeller":
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def _lasting_end(ended: ChildEnded, limits: Limits) -> str | None:
    """Return why a child ended if another try would end alike, else None."""
    match ended.failure:
        case Failure.MEMORY:
            return (
                "its child process needs more memory before it makes a label: "
                f"{ended.message}; raise the limit of a label's memory "
                f"({limits.memory_mb:g} MB), which is in MB"
            )
        case Failure.TIMEOUT:
            return f"its child process gave no answer ({ended.message})"
        case Failure.DISK:
            return ended.message
    outside = any(ended.message.startswith(name) for name in _FROM_OUTSIDE)
    return None if outside else f"its child process ended: {ended.message}"


def _close_children(held: dict[int, ChildProcess]) -> None:
    child = held.pop(os.getpid(), None)
    if child is not None:
        child.close()
