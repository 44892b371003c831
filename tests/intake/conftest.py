"""Water in a known potential, so that what is read can be told right from wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from alloop.core.units import HARTREE

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])  # Å
NUMBERS = np.array([8, 1, 1])
BONDS = ((0, 1, 0.97, 30.0), (0, 2, 0.97, 30.0), (1, 2, 1.52, 8.0))  # Å, eV/Å²
TOTAL = -76.2 * HARTREE  # eV


def springs(positions):
    """Energy (eV) and forces (atoms, 3) in eV/Å of a molecule of springs, whose energy
    lies where all-electron methods have water's."""
    energy, forces = TOTAL, np.zeros((3, 3))
    for i, j, length, stiff in BONDS:
        arm = positions[j] - positions[i]
        r = np.linalg.norm(arm)
        energy += 0.5 * stiff * (r - length) ** 2
        pull = stiff * (r - length) * arm / r
        forces[i] += pull
        forces[j] -= pull
    return energy, forces


def turned(rng, positions):
    """The same geometry somewhere else, otherwise oriented."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return positions @ q + rng.normal(size=3)


@pytest.fixture(scope="session")
def water():
    """200 thermal frames of water in any orientation: numbers, R, E, F in eV and Å."""
    rng = np.random.default_rng(5)
    shaken = WATER + rng.normal(0, 0.05, (200, 3, 3))
    placed = [turned(rng, positions) for positions in shaken]
    labelled = [springs(positions) for positions in placed]
    return SimpleNamespace(
        numbers=NUMBERS,
        positions=np.array(placed),
        energies=np.array([energy for energy, _ in labelled]),
        forces=np.array([forces for _, forces in labelled]),
        turned=turned,
    )


@pytest.fixture
def saved(water, tmp_path):
    """Save the frames as npz under the keys of MD17, each array scaled."""

    def save(energy=1.0, length=1.0, force=1.0, **arrays):
        path = tmp_path / "water.npz"
        found = {
            "z": water.numbers,
            "R": water.positions * length,
            "E": water.energies * energy,
            "F": water.forces * force,
        } | arrays
        np.savez(path, **{key: x for key, x in found.items() if x is not None})
        return path

    return save
