"""Active-learning molecular dynamics: two-fidelity data and force fields with a known
error.

A frame is born in MD, scored, selected, labelled, stored, learned from.
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


def __getattr__(name: str) -> Any:
    """Import public names when they are used: `import alloop` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'alloop' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
