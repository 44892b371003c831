"""Exchanges of temperatures against the distributions that they must leave alone."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN
from alloop.md.replica_exchange import exchange_temperatures

WATER = from_atoms(molecule("H2O"))
LEVELS = (300.0, 600.0, 900.0)


def crew(kelvin: list[float], **facts: object) -> list[Walker]:
    walker = Walker(0, 0, WATER, np.ones((3, 3)), **facts)
    return [replace(walker, index=i, temperature=x) for i, x in enumerate(kelvin)]


def test_each_temperature_keeps_its_distribution() -> None:
    rng = random_stream(0, "exact")
    kelvin = np.repeat(LEVELS, 4000)
    energies = rng.gamma(3.0, BOLTZMANN * kelvin)  # of six harmonic coordinates
    moved = exchange_temperatures(crew(kelvin.tolist()), energies, rng)
    after = np.array([walker.temperature for walker in moved])
    assert sorted(after) == sorted(kelvin)
    assert 0.2 < (after != kelvin).mean() < 0.8
    for level in LEVELS:
        mine = energies[after == level] / (BOLTZMANN * level)
        assert mine.mean() == pytest.approx(3.0, abs=0.1)
        assert mine.var() == pytest.approx(3.0, abs=0.3)


def test_velocities_follow_the_temperature() -> None:
    walkers = crew([300.0, 600.0])
    energies = np.array([1.0, 0.0])  # the cold one stands high: it always swaps
    cold, hot = exchange_temperatures(walkers, energies, random_stream(0, "x"))
    assert (cold.temperature, hot.temperature) == (600.0, 300.0)
    assert cold.velocities == pytest.approx(np.sqrt(2.0) * walkers[0].velocities)
    assert hot.velocities == pytest.approx(np.sqrt(0.5) * walkers[1].velocities)
    assert (cold.index, hot.index) == (0, 1)


@pytest.mark.parametrize(
    "walkers",
    [
        crew([300.0, 300.0]),
        crew([300.0, 600.0], stopped="contact"),
        [replace(x, temperature=None) for x in crew([300.0, 600.0])],
        [replace(x, molecule=x.index) for x in crew([300.0, 600.0])],
        crew([0.0, 600.0]),
    ],
)
def test_walkers_without_a_partner_stay_as_they_are(walkers: list[Walker]) -> None:
    energies = np.array([1.0, 0.0])
    moved = exchange_temperatures(walkers, energies, random_stream(0, "x"))
    assert [x.temperature for x in moved] == [x.temperature for x in walkers]
    assert all(np.array_equal(x.velocities, 1.0 + np.zeros((3, 3))) for x in moved)
