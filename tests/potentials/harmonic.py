"""A harmonic well, whose dynamics and averages are known exactly."""

import math
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.core.units import FORCE_TO_ACCELERATION


@dataclass(frozen=True, slots=True)
class HarmonicWell:
    """A spring from each atom to `centre` (Å): E = ½ k Σ |x_i - c|², k in eV/Å².

    3N independent oscillators: at temperature T the mean of each coordinate's square is
    k_B T / k. It is an external field and so not translation invariant.
    """

    stiffness: float = 1.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV) and forces (eV/Å).

        The descriptor is the distance to the centre, (atoms, 1) Å.
        """
        x = batch.positions - np.array(self.centre)  # (atoms, 3) Å
        squares = np.einsum("ad,ad->a", x, x)
        return Predictions(
            energies=np.bincount(
                batch.frame_index, 0.5 * self.stiffness * squares, minlength=len(batch)
            ),
            forces=-self.stiffness * x,
            descriptors=np.sqrt(squares)[:, None] if descriptors else None,
        )

    def frequency(self, mass: float) -> float:
        """Return ω = sqrt(k/m) in rad/fs of an atom of this mass (amu)."""
        return math.sqrt(self.stiffness * FORCE_TO_ACCELERATION / mass)
