"""Diatomics on springs at two levels: cheap is softer and longer than expensive."""

from collections.abc import Callable

import numpy as np
import pytest

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream


def spring_labels(
    count: int, stiffness: float, rest: float, base: float, name: str
) -> LabelSet:
    """Hydrogen molecules with E = base + k/2 (r - r0)²; r in Å between 0.6 and 1.0."""
    r = random_stream(3, name).uniform(0.6, 1.0, count)
    positions = np.zeros((count, 2, 3))
    positions[:, :, 0] = np.stack([-r / 2, r / 2], axis=1)
    slope = stiffness * (r - rest)  # dE/dr, eV/Å
    forces = np.zeros((count, 2, 3))
    forces[:, :, 0] = np.stack([slope, -slope], axis=1)
    batch = pack_frames([Frame(np.array([1, 1]), x) for x in positions])
    energies = base + 0.5 * stiffness * (r - rest) ** 2
    return LabelSet(batch, energies, forces.reshape(-1, 3))


@pytest.fixture
def expensive() -> Callable[..., LabelSet]:
    """Makes labels of the expensive level: k = 4 eV/Å², r0 = 0.8 Å, base -32 eV."""
    return lambda count, name="expensive": spring_labels(count, 4.0, 0.8, -32.0, name)


@pytest.fixture
def cheap() -> Callable[..., LabelSet]:
    """Makes labels of the cheap level: k = 3 eV/Å², r0 = 0.83 Å, base -30 eV."""
    return lambda count, name="cheap": spring_labels(count, 3.0, 0.83, -30.0, name)


@pytest.fixture
def none() -> LabelSet:
    """No labels at all."""
    return LabelSet(pack_frames([]), np.zeros(0), np.zeros((0, 3)))
