"""Implementations of Labeller: programs, gates, isolation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alloop.labels.calculators import calculator as calculator

__all__ = ["calculator"]


def __getattr__(name: str) -> Any:
    """Import public names when they are used: the label child needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'alloop.labels' has no attribute {name!r}")
    from alloop.labels import calculators

    return getattr(calculators, name)
