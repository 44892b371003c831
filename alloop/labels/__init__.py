"""Labellers: levels of theory, programs, checks of labels and the child process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alloop.labels.calculators import calculator as calculator

__all__ = ["calculator"]


def __getattr__(name: str) -> Any:
    """Import public names on first use, as the child process needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'alloop.labels' has no attribute {name!r}")
    from alloop.labels import calculators

    return getattr(calculators, name)
