"""A learned potential that predicts dipole moments too.

They are read out of the features that the network learned from energies and forces: the
charge of an atom is linear in its scalars, its own dipole in its vectors, where the
network has some. Charges are shifted alike so that they sum to the charge of the frame.
With the features as they are, fitting is a linear problem and changes no energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.arrays import segment_sums
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.units import Floats
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.learned import (
    HeadedPotential,
    LearnedPotential,
    from_checkpoint,
    to_array,
    without_head,
)

SETTING = "dipole"
_PREFIX = "dipole/"
_WEIGHTS = f"{_PREFIX}weights"


@dataclass(frozen=True, slots=True, eq=False)
class DipoleHead:
    """The weights of a linear readout of dipole moments.

    elements: atomic numbers, whose charges have a constant each. weights (elements +
    scalars + vectors,): of these, of the network's scalars and of its vectors, in e or
    e Å by unit of the feature.
    """

    elements: tuple[int, ...]
    weights: Floats


class DipolePotential(HeadedPotential[DipoleHead]):
    """A learned potential with a readout of dipole moments; a DipolarPotential.

    `predict` leaves them out, since they take a pass through the network of their own.
    """

    def dipoles(self, batch: Batch) -> Floats | None:
        """Return the dipoles (frames, 3) of molecules in e Å about the origin.

        None where a frame is periodic.
        """
        if batch.pbc.any():
            return None
        columns, origin = dipole_columns(self, batch, self.head.elements)
        out: Floats = origin + columns @ self.head.weights
        return out

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        plain = super().checkpoint()
        return replace(
            plain,
            settings={**plain.settings, SETTING: {"elements": [*self.head.elements]}},
            tensors={**plain.tensors, _WEIGHTS: self.head.weights.copy()},
        )


def dipoles_from_checkpoint(checkpoint: Checkpoint) -> DipolePotential:
    """Return the potential that `DipolePotential.checkpoint` described.

    Raises ValueError where the readout is not one of the network.
    """
    plain = from_checkpoint(without_head(checkpoint, SETTING, _PREFIX))
    elements = tuple(int(z) for z in checkpoint.settings[SETTING]["elements"])
    head = DipoleHead(elements, np.array(checkpoint.tensors[_WEIGHTS]))
    pair = Frame(np.full(2, min(plain.references)), np.diag([1.5, 0.0, 0.0])[:2])
    columns, _ = dipole_columns(plain, pack_frames([pair]), elements)
    if head.weights.shape != columns.shape[2:]:
        raise ValueError("the readout of dipoles is not one of its network")
    return DipolePotential(plain, head)


def dipole_columns(
    potential: LearnedPotential, batch: Batch, elements: Sequence[int]
) -> tuple[Floats, Floats]:
    """Return the columns (frames, 3, weights) that weights turn into dipoles.

    Also the dipoles (frames, 3) in e Å of the frames' charges spread over all atoms
    alike, to which those of the columns are added.
    """
    parts = potential.chunks.evaluate(
        batch.offsets, lambda start, stop: potential.atom_outputs(batch, start, stop)
    )
    scalars = np.concatenate([to_array(part.descriptors) for part in parts])
    constants = batch.numbers[:, None] == np.array(elements, dtype=np.int64)
    charges = np.concatenate([constants.astype(np.float64), scalars], axis=1)
    centres = segment_sums(batch.positions, batch.offsets) / batch.sizes[:, None]
    # Charges about their mean are those at their places about the centre of these.
    arms = batch.positions - np.repeat(centres, batch.sizes, axis=0)
    columns = segment_sums(arms[:, :, None] * charges[:, None], batch.offsets)
    vectors = [to_array(part.vectors) for part in parts if part.vectors is not None]
    if vectors:
        sums = segment_sums(np.concatenate(vectors), batch.offsets)
        columns = np.concatenate([columns, sums], axis=2)
    return columns, batch.charges[:, None] * centres
