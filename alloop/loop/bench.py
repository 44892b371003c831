"""A worker's own instruments: one labeller a process, and its meter."""

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.isolated import Child, Limits
from alloop.labels.open import DirectLabeller
from alloop.loop.kit import Kit

_children: dict[Limits, Child] = {}


def labeller(kit: Kit, level: Level) -> Labeller:
    """This process's labeller for the level; isolated ones share one warm child."""
    if not kit.isolate:
        return DirectLabeller(level)
    if kit.limits not in _children:
        _children[kit.limits] = Child(kit.limits)
    return _children[kit.limits].labeller(level)


def close() -> None:
    """End this process's children."""
    for child in _children.values():
        child.close()
    _children.clear()


class Metered:
    """A labeller that adds up the CPU seconds spent in its child."""

    def __init__(self, inner: Labeller, isolated: bool) -> None:
        self._inner = inner
        self._isolated = isolated
        self.children = 0.0

    def label(self, frame: Frame) -> Label | Unlabelled:
        """The inner labeller's answer."""
        record = self._inner.label(frame)
        if self._isolated:
            self.children += record.cpu_seconds
        return record
