"""The one way to a labeller: a level in, a Labeller out."""

from alloop.core.levels import Level
from alloop.core.roles import Labeller
from alloop.labels.direct import DirectLabeller as DirectLabeller
from alloop.labels.isolated import IsolatedLabeller as IsolatedLabeller
from alloop.labels.start import Limits as Limits


def labeller(
    level: Level, limits: Limits | None = None, isolate: bool = True
) -> Labeller:
    """A labeller at the level, in a child process unless `isolate` is false."""
    return IsolatedLabeller(level, limits) if isolate else DirectLabeller(level)
