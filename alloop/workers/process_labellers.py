"""A worker's own instruments: one labeller a process, and its meter."""

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.open import DirectLabeller
from alloop.workers.settings import WorkerSettings

# By kind of level: torch of a model and OpenMP of quantum chemistry share no process.
_children: dict[tuple[Limits, str], LabelChild] = {}


def labeller_for(kit: WorkerSettings, level: Level) -> Labeller:
    """This process's labeller for the level; isolated ones of one kind share
    a warm child."""
    if not kit.isolate:
        return DirectLabeller(level)
    key = (kit.limits, level.kind)
    if key not in _children:
        _children[key] = LabelChild(kit.limits)
    return _children[key].labeller(level)


def close_labellers() -> None:
    """End this process's children."""
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
        """The inner labeller's answer."""
        record = self._inner.label(frame)
        if self._isolated:
            self.children += record.cpu_seconds
        return record
