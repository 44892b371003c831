from collections.abc import Iterator

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.labels.child.labeller import LabelChild, Limits


@pytest.fixture
def water() -> Frame:
    positions = [[0.0, 0.0, 0.01], [0.0, 0.757, 0.587], [0.03, -0.757, 0.6]]
    return Frame(np.array([8, 1, 1]), np.array(positions))


@pytest.fixture
def hydroxyl() -> Frame:
    return Frame(np.array([8, 1]), np.array([[0, 0.01, 0], [0.03, 0, 0.98]]), spin=1)


@pytest.fixture
def hydrogen() -> Frame:
    return Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.78]]))


@pytest.fixture(scope="session")
def child() -> Iterator[LabelChild]:
    """One warm child for all tests that do not break it."""
    shared = LabelChild(Limits(seconds=120.0))
    yield shared
    shared.close()
