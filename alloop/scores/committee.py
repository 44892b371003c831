"""The disagreement of a committee, the classical measure of uncertainty.

Other members are trained as the generation's potential was, each on a random share of
the same labels and from another seed. The generation's potential alone moves walkers;
it is a member too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Arrays, Potential, ReadPotential, Retrain
from alloop.core.settings import setting
from alloop.core.units import Floats
from alloop.models.checkpoint import Storable, checkpoint_to_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Committee:
    """A scorer by the largest force spread among a frame's atoms, in eV/Å.

    others: the members besides the potential whose predictions are scored, at least
    one; each is asked for every frame that is scored.
    """

    others: tuple[Potential, ...]

    def __post_init__(self) -> None:
        if not self.others:
            raise InputError("expected a committee of two potentials or more, got 1")

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return the surprise (frames,) in eV/Å."""
        spread = self.per_atom(batch, predictions.forces)
        if not len(batch):
            return spread
        out: Floats = np.maximum.reduceat(spread, batch.offsets[:-1])
        return out

    def per_atom(self, batch: Batch, forces: Floats) -> Floats:
        """Return √(mean over members of |F - F̄|²) of each atom (atoms,) in eV/Å.

        forces: (atoms, 3), of the first member.
        """
        predicted = (member.predict(batch).forces for member in self.others)
        every = np.stack([forces, *predicted])
        squares = ((every - every.mean(axis=0)) ** 2).sum(axis=-1)
        out: Floats = np.sqrt(squares.mean(axis=0))
        return out

    def arrays(self) -> Arrays:
        """Return the bytes of each other member's checkpoint, by its number.

        TypeError where a member cannot be stored.
        """
        arrays = {}
        for number, member in enumerate(self.others, 1):
            if not isinstance(member, Storable):
                raise TypeError("a member of the committee has no checkpoint()")
            data = checkpoint_to_bytes(member.checkpoint())
            arrays[f"member_{number}"] = np.frombuffer(data, dtype=np.uint8)
        return arrays


@dataclass(frozen=True, slots=True)
class CommitteeScorer:
    """The Scorer whose surprise is the disagreement of a committee."""

    members: int = setting(4, "number of models, with the campaign's own", ge=2, le=64)
    share: float = setting(
        0.8, "share of the labels that each further model learns from", gt=0, le=1
    )

    @property
    def retrained(self) -> Mapping[int, float]:
        """The share of the labels by the number of each other member."""
        return dict.fromkeys(range(1, self.members), self.share)

    def fit(
        self,
        potential: Potential,  # noqa: ARG002
        learned: Batch,  # noqa: ARG002
        heldout: Batch,  # noqa: ARG002
        retrain: Retrain,
    ) -> Committee:
        """Return the committee with the other members, trained now or before."""
        return Committee(
            tuple(retrain(*arguments) for arguments in self.retrained.items())
        )

    def restore(self, arrays: Arrays, read_potential: ReadPotential) -> Committee:
        """Return the committee that gave these arrays."""
        names = [f"member_{number}" for number in range(1, len(arrays) + 1)]
        return Committee(tuple(read_potential(arrays[x].tobytes()) for x in names))
