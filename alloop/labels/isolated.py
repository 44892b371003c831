"""Labels from one warm child process: whatever happens there, the worker lives on."""

import os
import threading
import weakref
from collections.abc import Sequence

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.process import ChildProcess, Ended
from alloop.labels.process import Limits as Limits
from alloop.labels.wire import Message, ask_label, told

_WORN = 0.5  # of the memory limit, resident between two labels: time for a new child


class Child:
    """A child that is started when first asked, and again whenever it has died."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        # By process id: a fork must not share the pipes.
        self._held: dict[int, ChildProcess] = {}
        self._answered = 0
        self._finalizer = weakref.finalize(self, _close, self._held)

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while there is none."""
        child = self._held.get(os.getpid())
        return child.pid if child is not None and child.alive else None

    def labeller(self, level: Level) -> "IsolatedLabeller":
        """A labeller at the level through this child."""
        return IsolatedLabeller(level, child=self)

    def ask(self, request: Message) -> Message:
        """The answer; raises `Ended` where the child did not live to give one."""
        with self._lock:
            answered = False
            try:
                answer = self._child().exchange(request, self.limits)
                answered = True
            except OSError as error:
                text = f"the child could not be started or reached: {error}"
                raise Ended(Failure.CRASHED, text, 0.0) from error
            finally:
                if not answered:  # an interrupted child would answer the next question
                    self._drop()
            self._answered += 1
            return answer

    def close(self) -> None:
        """End the child; the next question starts another."""
        _close(self._held)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _drop(self) -> None:
        child = self._held.pop(os.getpid(), None)
        if child is not None:
            child.kill()

    def _child(self) -> ChildProcess:
        child = self._held.get(os.getpid())
        if child is not None and self._worn(child):
            self.close()
            child = None
        if child is None:
            child = self._held[os.getpid()] = ChildProcess()
            self._answered = 0
        return child

    def _worn(self, child: ChildProcess) -> bool:
        if not child.alive or self._answered >= self.limits.labels:
            return True
        return child.memory_mb > _WORN * self.limits.memory_mb


class IsolatedLabeller:
    """Labels at one level in a child process; `labeller` gives views of other levels.

    A label's failure is a value: time and memory limits, crashes and signals included.
    """

    def __init__(
        self, level: Level, limits: Limits | None = None, child: Child | None = None
    ) -> None:
        self.level = level
        self.child = child or Child(limits or Limits())

    def labeller(self, level: Level) -> "IsolatedLabeller":
        """A labeller of another level through the same child."""
        return IsolatedLabeller(level, child=self.child)

    def label(self, frame: Frame) -> Label | Unlabelled:
        """The label, or the reason why there is none."""
        try:
            answer = self.child.ask(ask_label(self.level, frame))
        except Ended as ended:
            why = (ended.failure, ended.message, ended.cpu_seconds)
            return Unlabelled(frame.id, self.level.id, *why)
        return told(answer, frame, self.level)

    def problems(self, elements: Sequence[str]) -> list[str]:
        """What is wrong with the level for these elements, one sentence each."""
        question = {
            "ask": "check",
            "kind": self.level.kind,
            "text": self.level.text,
            "elements": list(elements),
        }
        try:
            answer = self.child.ask(Message(question))
        except Ended as ended:
            return [f"level {self.level.title} could not be checked: {ended.message}"]
        return [str(problem) for problem in answer.header["problems"]]

    def close(self) -> None:
        """End the child process."""
        self.child.close()

    def __enter__(self) -> "IsolatedLabeller":
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def _close(held: dict[int, ChildProcess]) -> None:
    child = held.pop(os.getpid(), None)
    if child is not None:
        child.close()
