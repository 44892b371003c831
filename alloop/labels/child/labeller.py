"""Labels from one warm child process: whatever happens there, the worker lives on.

| what happens in the child                             | what the label becomes |
|-------------------------------------------------------|------------------------|
| no answer in time; stopped                             | TIMEOUT               |
| its processes exceed the limit; an allocation fails;   | MEMORY                |
| SIGKILL by the kernel's OOM killer, or near the limit  |                       |
| signal, exit, exception; cannot start; garbled answer  | CRASHED               |
| the scratch disk is full                               | DISK                  |

A child that did not answer, or answered MEMORY or DISK, is not asked again. A label
must not depend on what its child did before: so a crash, or too much memory, of a child
that had made labels already is believed only once a fresh child has repeated it.
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
from alloop.labels.child.exit_cause import EXITED, ChildEnded
from alloop.labels.child.messages import (
    GarbledMessage,
    Message,
    label_request,
    parse_outcome,
)
from alloop.labels.child.process import ChildProcess
from alloop.labels.child.start import Limits as Limits

_WORN = 0.5  # of the memory limit, resident between two labels: time for a new child
_AGAIN = (Failure.CRASHED, Failure.MEMORY)  # what a child's past may have caused
_SPENT = (Failure.MEMORY.name, Failure.DISK.name)  # answers that leave a child in ruins


class LabelChild:
    """A child that is started when first asked, and again whenever it has died."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        # By process id: a fork must not share the pipes.
        self._held: dict[int, ChildProcess] = {}
        self._finalizer = weakref.finalize(self, _close_children, self._held)

    @property
    def pid(self) -> int | None:
        """The process id of the child's supervisor, None while there is no child."""
        child = self._held.get(os.getpid())
        return child.pid if child is not None and child.is_sound else None

    def labeller(self, level: Level) -> "IsolatedLabeller":
        """A labeller at the level through this child."""
        return IsolatedLabeller(level, child=self)

    def ask(self, request: Message) -> Message:
        """The answer; raises `Ended` where no child lived to give one."""
        with self._lock:
            try:
                return self._send_request(request)
            except ChildEnded as ended:
                if ended.fresh or ended.failure not in _AGAIN:
                    raise
                lost = ended.cpu_seconds
            return self._retry_request(request, lost)

    def close(self) -> None:
        """End the child; the next question starts another."""
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
            if not answered:  # an interrupted child would answer the next question
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
    """Labels at one level in a child process; `labeller` gives views of other levels.

    A label's failure is a value: time and memory limits, crashes and signals included.
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
        """A labeller of another level through the same child."""
        return IsolatedLabeller(level, child=self.child)

    def label(self, frame: Frame) -> Label | Unlabelled:
        """The label, or the reason why there is none."""
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
        """What is wrong with the level for these elements, one sentence each.

        Interrupted where the child died or was killed before it could tell.
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
            if ended.message.startswith(EXITED):  # what it imported raised something
                return [f"{self.level.title} cannot be used: {ended.message}"]
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


def _close_children(held: dict[int, ChildProcess]) -> None:
    child = held.pop(os.getpid(), None)
    if child is not None:
        child.close()
