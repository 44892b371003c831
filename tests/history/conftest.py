"""The played campaign of the loop's tests."""

from tests.loop.conftest import world

__all__ = ["world"]
