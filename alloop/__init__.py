"""Active-learning MD: two-fidelity data sets and force fields with a known error.

MD proposes frames; they are scored, selected, labelled, stored and trained on.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alloop.campaign import Campaign as Campaign
    from alloop.core.errors import AlloopError as AlloopError
    from alloop.core.frame import Frame as Frame
    from alloop.generation import load as load
    from alloop.jobs.train_setup import train as train

__version__ = "0.1.0"
_HOMES = {
    "AlloopError": "alloop.core.errors",
    "Campaign": "alloop.campaign",
    "Frame": "alloop.core.frame",
    "load": "alloop.generation",
    "train": "alloop.jobs.train_setup",
}
__all__ = [*_HOMES, "__version__"]


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import alloop` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'alloop' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
