"""The molecule of the labels' tests."""

from tests.labels.conftest import water

__all__ = ["water"]
