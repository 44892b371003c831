"""Many frames packed into flat arrays, the form that every stage shares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alloop.core.frame import Frame
from alloop.core.units import Booleans, Floats, Integers


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames packed one after the other.

    numbers (atoms,), positions (atoms, 3) in Å, offsets (frames + 1,): frame i owns the
    atoms offsets[i]:offsets[i + 1]; charges and spins (frames,), cells (frames, 3, 3)
    in Å, pbc (frames, 3).
    """

    numbers: Integers
    positions: Floats
    offsets: Integers
    charges: Integers
    spins: Integers
    cells: Floats
    pbc: Booleans

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Integers:
        """The number of atoms of each frame (frames,)."""
        out: Integers = np.diff(self.offsets)
        return out

    @property
    def frame_index(self) -> Integers:
        """The frame that each atom belongs to (atoms,)."""
        out: Integers = np.repeat(np.arange(len(self)), self.sizes)
        return out

    def atom_slices(self) -> Iterator[slice]:
        """Yield the slice of atoms of each frame, in order."""
        for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield slice(int(start), int(stop))

    def frame(self, index: int) -> Frame:
        """Return the frame at `index`."""
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        a, b, c = (bool(periodic) for periodic in self.pbc[index])
        return Frame(
            numbers=self.numbers[span],
            positions=self.positions[span],
            charge=int(self.charges[index]),
            spin=int(self.spins[index]),
            cell=self.cells[index],
            pbc=(a, b, c),
        )

    def frames(self) -> tuple[Frame, ...]:
        """Return all frames, in order."""
        return tuple(self.frame(index) for index in range(len(self)))

    def with_positions(self, positions: Floats) -> "Batch":
        """Return the same molecules at other positions (atoms, 3) in Å."""
        return replace(self, positions=positions)

    def with_cells(self, positions: Floats, cells: Floats) -> "Batch":
        """Return the frames at other positions in other cells (frames, 3, 3) in Å."""
        return replace(self, positions=positions, cells=cells)

    def select(self, indices: Sequence[int] | Integers) -> "Batch":
        """Return the batch of the frames at `indices`, in that order."""
        atoms = take_atoms(self.offsets, indices)
        chosen = np.asarray(indices, dtype=np.int64)
        return Batch(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            offsets=_frame_offsets(self.sizes[chosen]),
            charges=self.charges[chosen],
            spins=self.spins[chosen],
            cells=self.cells[chosen],
            pbc=self.pbc[chosen],
        )


def pack_frames(frames: Sequence[Frame]) -> Batch:
    """Pack frames into one batch; an empty sequence gives an empty batch."""
    return Batch(
        numbers=_concatenated([frame.numbers for frame in frames], (0,), np.int64),
        positions=_concatenated(
            [frame.positions for frame in frames], (0, 3), np.float64
        ),
        offsets=_frame_offsets(
            np.array([len(frame) for frame in frames], dtype=np.int64)
        ),
        charges=np.array([frame.charge for frame in frames], dtype=np.int64),
        spins=np.array([frame.spin for frame in frames], dtype=np.int64),
        cells=np.array([frame.cell for frame in frames]).reshape(-1, 3, 3),
        pbc=np.array([frame.pbc for frame in frames], dtype=np.bool_).reshape(-1, 3),
    )


def frame_means(batch: Batch, per_atom: Floats) -> Floats:
    """Return the mean over the atoms of each frame: (atoms, ...) -> (frames, ...)."""
    sums = np.add.reduceat(per_atom, batch.offsets[:-1], axis=0)
    means: Floats = sums / batch.sizes.reshape(-1, *[1] * (per_atom.ndim - 1))
    return means


def evenly_thinned(count: int, limit: int) -> slice:
    """Return the slice of each n-th of `count` items, at most `limit` of them."""
    return slice(None, None, max(1, -(-count // limit)))


def take_atoms(offsets: Integers, indices: Sequence[int] | Integers) -> Integers:
    """Return the atom indices of the frames at `indices`, frame after frame."""
    parts = [np.arange(offsets[i], offsets[i + 1]) for i in indices]
    out: Integers = _concatenated(parts, (0,), np.int64)
    return out


def _concatenated(parts: Sequence[Any], empty: tuple[int, ...], dtype: type) -> Any:
    return np.concatenate(parts) if len(parts) else np.zeros(empty, dtype=dtype)


def _frame_offsets(sizes: Integers) -> Integers:
    out: Integers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return out


def same_molecules(batch: Batch, other: Batch) -> bool:
    """Return True if two batches are the same molecules; in MD they share arrays."""
    if batch.numbers is other.numbers and batch.offsets is other.offsets:
        return True
    return all(
        np.array_equal(getattr(batch, name), getattr(other, name))
        for name in ("numbers", "offsets", "charges", "spins", "pbc")
    )
