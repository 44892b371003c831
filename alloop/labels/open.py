"""The function that makes a labeller from a level."""

from alloop.core.levels import Level
from alloop.core.roles import Labeller
from alloop.labels.child.labeller import IsolatedLabeller as IsolatedLabeller
from alloop.labels.child.start import Limits as Limits
from alloop.labels.direct import DirectLabeller as DirectLabeller


def labeller(
    level: Level, limits: Limits | None = None, isolate: bool = True
) -> Labeller:
    """Return a labeller of the level, in a child process unless `isolate` is false."""
    return IsolatedLabeller(level, limits) if isolate else DirectLabeller(level)
