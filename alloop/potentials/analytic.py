"""A potential with exact answers, to try things out."""

import math
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.core.units import FORCE_TO_ACCELERATION, Floats, Integers
from alloop.models.neighbours import static_pairs


@dataclass(frozen=True, slots=True)
class Morse:
    """The Morse potential E = Σ D [(1 - exp(-a (r - r₀)))² - 1].

    Morse, Phys. Rev. 1929, 34, 57. depth D in eV, width a in 1/Å, length r₀ in Å. bonds
    lists the pairs of every frame; without it all pairs bind. Cells are ignored.
    """

    depth: float = 4.0
    width: float = 2.0
    length: float = 1.0
    bonds: tuple[tuple[int, int], ...] | None = None

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV) and forces (eV/Å).

        The descriptor is half of an atom's bond energies, (atoms, 1) eV.
        """
        i, j = self._pairs(batch)
        apart = batch.positions[j] - batch.positions[i]  # (pairs, 3) Å
        r = np.sqrt(np.einsum("pd,pd->p", apart, apart))
        e = np.exp(-self.width * (r - self.length))
        slope = 2 * self.depth * self.width * e * (1 - e)  # dE/dr (pairs,) eV/Å
        forces = np.zeros_like(batch.positions)
        np.add.at(forces, i, (slope / r)[:, None] * apart)
        halves = np.zeros(len(batch.numbers))
        np.add.at(halves, i, 0.5 * self.depth * ((1 - e) ** 2 - 1))
        return Predictions(
            energies=_frame_sums(batch, halves),
            forces=forces,
            descriptors=halves[:, None] if descriptors else None,
        )

    def frequency(self, reduced_mass: float) -> float:
        """Return ω = a sqrt(2D/μ) in rad/fs of small vibrations, μ in amu."""
        stiffness = 2 * self.depth * self.width**2  # eV/Å²
        return math.sqrt(stiffness * FORCE_TO_ACCELERATION / reduced_mass)

    def _pairs(self, batch: Batch) -> tuple[Integers, Integers]:
        """Return ordered pairs; each bond comes both ways."""
        if self.bonds is None:
            pairs = static_pairs(tuple(batch.sizes.tolist()))
            return pairs.centres, pairs.neighbours
        bonds = np.array(self.bonds, dtype=np.int64).reshape(-1, 2)
        both = np.concatenate([bonds, bonds[:, ::-1]])  # (2 bonds, 2)
        placed = (batch.offsets[:-1, None, None] + both).reshape(-1, 2)
        return placed[:, 0], placed[:, 1]


def _frame_sums(batch: Batch, per_atom: Floats) -> Floats:
    sums = np.bincount(batch.frame_index, per_atom, minlength=len(batch))
    return np.asarray(sums, dtype=np.float64)
