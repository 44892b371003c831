"""Frames with their descriptors and force norms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch, frame_means, take_atoms
from alloop.core.roles import Potential
from alloop.core.units import Floats, Integers

_CHUNK = 2000  # atoms, about, that a potential gets at once


@dataclass(frozen=True, slots=True, eq=False)
class DescribedFrames:
    """Frames with their descriptors and force norms.

    descriptors: (atoms, features), None where the potential has none; rows of atoms
    that were not described are NaN. norms (frames,): mean length of the force on an
    atom, eV/Å; NaN where it is not known.
    """

    batch: Batch
    descriptors: Floats | None
    norms: Floats

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, indices: Integers) -> "DescribedFrames":
        """Return the frames at `indices`, in that order."""
        atoms = take_atoms(self.batch.offsets, indices)
        own = None if self.descriptors is None else self.descriptors[atoms]
        return DescribedFrames(self.batch.select(indices), own, self.norms[indices])


def describe_frames(
    potential: Potential,
    batch: Batch,
    forces: Floats | None = None,
    known: Sequence[int] | None = None,
) -> DescribedFrames:
    """Return frames with a potential's descriptors and their force norms.

    forces (atoms, 3) in eV/Å: of labels, by default the potential's. known: the atomic
    numbers that the potential was trained on; frames with others are not predicted.
    """
    own = np.zeros(len(batch.numbers), dtype=np.bool_)
    own[:] = True if known is None else np.isin(batch.numbers, list(known))
    slices = batch.atom_slices()
    whole = np.array([own[atoms].all() for atoms in slices], dtype=np.bool_)
    found = np.full((len(batch.numbers), 3), np.nan)
    descriptors: Floats | None = None
    for part in _parts(batch, np.flatnonzero(whole)):
        said = potential.predict(batch.select(part), descriptors=True)
        atoms = np.isin(batch.frame_index, part)
        found[atoms] = said.forces
        if said.descriptors is not None:
            if descriptors is None:
                shape = (len(atoms), said.descriptors.shape[1])
                descriptors = np.full(shape, np.nan)
            descriptors[atoms] = said.descriptors
    return DescribedFrames(
        batch, descriptors, force_norms(batch, found if forces is None else forces)
    )


def force_norms(batch: Batch, forces: Floats) -> Floats:
    """Return the mean over each frame's atoms of the force's length, (frames,) eV/Å."""
    return frame_means(batch, np.linalg.norm(forces, axis=1))


def _parts(batch: Batch, indices: Integers) -> list[Integers]:
    """Cut frames into parts of about `_CHUNK` atoms."""
    if not len(indices):
        return []
    ends = np.cumsum(batch.sizes[indices]) // _CHUNK
    cuts = np.flatnonzero(np.diff(ends)) + 1
    parts: list[Integers] = np.split(indices, cuts)
    return parts
