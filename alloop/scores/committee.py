"""The disagreement of a committee, the classical measure of uncertainty."""

from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.units import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Committee:
    """A scorer by the largest force spread among a frame's atoms, in eV/Å.

    members: at least two potentials, each asked anew for every frame that is scored.
    """

    members: tuple[Potential, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise InputError(
                f"expected a committee of two potentials or more, got "
                f"{len(self.members)}"
            )

    def score(self, batch: Batch, predictions: Predictions) -> Floats:  # noqa: ARG002
        """Return the surprise (frames,) in eV/Å; `predictions` are not used."""
        spread = self.per_atom(batch)
        if not len(batch):
            return spread
        out: Floats = np.maximum.reduceat(spread, batch.offsets[:-1])
        return out

    def per_atom(self, batch: Batch) -> Floats:
        """Return √(mean over members of |F - F̄|²) of each atom (atoms,) in eV/Å."""
        forces = np.stack([member.predict(batch).forces for member in self.members])
        squares = ((forces - forces.mean(axis=0)) ** 2).sum(axis=-1)
        out: Floats = np.sqrt(squares.mean(axis=0))
        return out
