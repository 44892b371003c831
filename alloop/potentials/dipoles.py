"""A learned potential that predicts dipole moments too.

They are read out of the features that the network learned from energies and forces: the
charge of an atom is linear in its scalars, its own dipole in its vectors, where the
network has some. Charges are shifted alike so that they sum to the charge of the frame.
With the features as they are, fitting is a linear problem and changes no energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from alloop.core.arrays import segment_sums
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.units import Floats
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.learned import LearnedPotential, from_checkpoint

SETTING = "dipole"
_WEIGHTS = "dipole/weights"


@dataclass(frozen=True, slots=True, eq=False)
class DipoleHead:
    """The weights of a linear readout of dipole moments.

    elements: atomic numbers, whose charges have a constant each. weights (elements +
    scalars + vectors,): of these, of the network's scalars and of its vectors, in e or
    e Å by unit of the feature.
    """

    elements: tuple[int, ...]
    weights: Floats


class DipolePotential(LearnedPotential):
    """A learned potential with a readout of dipole moments."""

    gives_dipoles = True  # what calculators look for

    def __init__(self, plain: LearnedPotential, head: DipoleHead) -> None:
        super().__init__(
            plain.frozen_network,
            plain.references,
            plain.scale,
            plain.device,
            plain.repulsion,
        )
        self.head = head

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return what `LearnedPotential.predict` does, with dipoles of molecules.

        They are about the origin of coordinates, and None where a frame is periodic.
        """
        predictions = super().predict(batch, descriptors=descriptors)
        if batch.pbc.any():
            return predictions
        return replace(predictions, dipoles=self.dipoles(batch))

    def dipoles(self, batch: Batch) -> Floats:
        """Return the dipoles (frames, 3) of molecules, e Å about the origin."""
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
    settings = {k: v for k, v in checkpoint.settings.items() if k != SETTING}
    tensors = {k: v for k, v in checkpoint.tensors.items() if k != _WEIGHTS}
    plain = from_checkpoint(replace(checkpoint, settings=settings, tensors=tensors))
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
    scalars = np.concatenate([_to_array(part.descriptors) for part in parts])
    constants = batch.numbers[:, None] == np.array(elements, dtype=np.int64)
    charges = np.concatenate([constants.astype(np.float64), scalars], axis=1)
    centres = segment_sums(batch.positions, batch.offsets) / batch.sizes[:, None]
    # Charges about their mean are those at their places about the centre of these.
    arms = batch.positions - np.repeat(centres, batch.sizes, axis=0)
    columns = segment_sums(arms[:, :, None] * charges[:, None], batch.offsets)
    if parts[0].vectors is not None:
        vectors = np.concatenate([_to_array(part.vectors) for part in parts])
        columns = np.concatenate([columns, segment_sums(vectors, batch.offsets)], 2)
    return columns, batch.charges[:, None] * centres


def _to_array(tensor: torch.Tensor | None) -> Floats:
    if tensor is None:
        raise TypeError("expected vectors of all parts of a batch, got none")
    out: Floats = tensor.cpu().numpy().astype(np.float64)
    return out
