"""The labellers of a worker process, and a labeller that measures CPU time."""

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.direct import DirectLabeller
from alloop.workers.settings import WorkerSettings

# One per kind of level: torch (models) and OpenMP (quantum chemistry) must not share
# a process.
_children: dict[tuple[Limits, str], LabelChild] = {}


def labeller_for(kit: WorkerSettings, level: Level) -> Labeller:
    """Return this process's labeller for the level.

    Isolated labellers of one kind of level share a running child process.
    """
    if not kit.isolate:
        return DirectLabeller(level)
    key = (kit.limits, level.kind)
    if key not in _children:
        _children[key] = LabelChild(kit.limits)
    return _children[key].labeller(level)


def close_labellers() -> None:
    """End the label children of this process."""
    for child in _children.values():
        child.close()
    _children.clear()


class MeteredLabeller:
    """A labeller that adds up the CPU seconds spent in its child."""

    def __init__(self, inner: Labeller, isolated: bool) -> None:
        self._inner = inner
        self._isolated = isolated
        self.children = 0.0

    def label(self, frame: Frame) -> Label | Unlabelled:
        """Return the inner labeller's answer."""
        record = self._inner.label(frame)
        if self._isolated:
            self.children += record.cpu_seconds
        return record
