"""Exchange of temperatures between the walkers of a molecule.

Replica exchange MD: Sugita & Okamoto, Chem. Phys. Lett. 314, 141 (1999). A walker that
is stuck in a well takes a higher temperature for a while, and each temperature is still
sampled as without exchanges.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from alloop.core.records import Walker
from alloop.core.units import BOLTZMANN, Floats


def exchange_temperatures(
    walkers: Sequence[Walker], energies: Floats, rng: np.random.Generator
) -> tuple[Walker, ...]:
    """Return the walkers after attempts to swap neighbouring temperatures.

    energies (walkers,): potential, in eV. Between every second pair of a molecule's
    temperatures, drawn anew, walkers are paired at random and swap temperatures with
    the probability min(1, exp((1/k_B T₁ - 1/k_B T₂)(E₁ - E₂))); velocities are scaled
    by the root of the ratio. Walkers that have stopped, without a temperature of their
    own or at 0 K, take no part.
    """
    out = list(walkers)
    for molecule in sorted({walker.molecule for walker in walkers}):
        levels: dict[float, list[int]] = {}
        for place, walker in enumerate(walkers):
            movable = walker.molecule == molecule and walker.stopped is None
            if movable and walker.temperature:
                levels.setdefault(walker.temperature, []).append(place)
        neighbours = list(pairwise(sorted(levels)))
        for cold, hot in neighbours[int(rng.integers(2)) if neighbours[1:] else 0 :: 2]:
            pairs = zip(
                *(rng.permutation(levels[x]) for x in (cold, hot)), strict=False
            )
            for first, second in pairs:
                slope = (1.0 / cold - 1.0 / hot) / BOLTZMANN
                exponent = slope * (energies[first] - energies[second])
                if rng.random() < np.exp(min(0.0, float(exponent))):
                    out[first] = _at_temperature(walkers[first], hot)
                    out[second] = _at_temperature(walkers[second], cold)
    return tuple(out)


def _at_temperature(walker: Walker, kelvin: float) -> Walker:
    scale = np.sqrt(kelvin / (walker.temperature or kelvin))
    return replace(walker, velocities=scale * walker.velocities, temperature=kelvin)
