"""Frames of every kind."""

from collections.abc import Callable

import numpy as np
import pytest

from alloop.core.frame import Frame


def any_frame(seed: int) -> Frame:
    """A frame of up to five atoms: charged, open-shell or periodic as it may be."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    periodic = tuple(bool(x) for x in rng.integers(0, 2, 3))
    return Frame(
        numbers=rng.integers(1, 87, size),
        positions=rng.uniform(-20, 20, (size, 3)),
        charge=int(rng.integers(-3, 4)),
        spin=int(rng.integers(0, 5)),
        cell=rng.normal(size=(3, 3)) if any(periodic) else np.zeros((3, 3)),
        pbc=periodic,
    )


@pytest.fixture(scope="session")
def frame_of() -> Callable[[int], Frame]:
    return any_frame
