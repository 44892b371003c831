"""Analytic potentials with known answers, and small molecules to move on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.units import Floats


@dataclass(frozen=True)
class Springs:
    """E = k/2 Σ (r_ij - d_ij)² over the pairs of each frame; all frames alike.

    `lengths` (atoms, atoms) in Å; all zero gives an exactly Gaussian cloud. Descriptors
    are the atom's distances to the others.
    """

    stiffness: Floats | float  # eV/Å²
    lengths: Floats

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        size = len(self.lengths)
        x = batch.positions.reshape(-1, size, 3)
        d = x[:, :, None] - x[:, None]  # (frames, atoms, atoms, 3)
        r = np.linalg.norm(d, axis=-1)
        stretch = r - self.lengths * ~np.eye(size, dtype=bool)
        energies = 0.25 * (self.stiffness * stretch**2).sum(axis=(1, 2))
        pull = self.stiffness * stretch / np.where(r > 0.0, r, 1.0)
        forces = -(pull[..., None] * d).sum(axis=2).reshape(-1, 3)
        described = r.reshape(-1, size) if descriptors else None
        return Predictions(energies, forces, described)


@dataclass(frozen=True)
class Push:
    """E = -f r of a diatomic: a constant force f (eV/Å) that drives it apart."""

    force: float

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        x = batch.positions.reshape(-1, 2, 3)
        d = x[:, 1] - x[:, 0]
        r = np.linalg.norm(d, axis=1)
        along = self.force * d / r[:, None]
        forces = np.stack([-along, along], axis=1).reshape(-1, 3)
        described = np.repeat(r, 2)[:, None] if descriptors else None
        return Predictions(-self.force * r, forces, described)


def springs_of(frame: Frame, stiffness: Floats | float) -> Springs:
    x = frame.positions
    return Springs(stiffness, np.linalg.norm(x[:, None] - x[None], axis=-1))


@pytest.fixture(name="springs_of")
def springs_of_fixture() -> Callable[[Frame, Floats | float], Springs]:
    return springs_of


@pytest.fixture
def push() -> Callable[[float], Push]:
    return Push


@pytest.fixture
def water() -> Frame:
    positions = [[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.2400, 0.9266, 0.0]]
    return Frame(np.array([8, 1, 1]), np.array(positions))


@pytest.fixture
def nitrogen() -> Frame:
    return Frame(np.array([7, 7]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]]))


@pytest.fixture
def cloud() -> Springs:
    """Three atoms on springs of no length: everything about it is Gaussian."""
    return Springs(1.0, np.zeros((3, 3)))
