"""Ordered pairs (centre, neighbour) of the interacting atoms of a batch, numpy only.

Small molecules list all pairs once: the list then depends on nothing but the sizes of
the frames, and MD needs no search. Pairs beyond a cutoff must be removed by an envelope
in the network. Periodic and larger frames are searched (vesin).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.units import Floats, Integers

FARTHEST = 60.0  # Å, the largest cutoff in a cell
SMALL = 20  # atoms up to which a search costs more than the pairs that it leaves out
FIXED = 64  # the same where changing pairs cost more: on a card, in code for one batch


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourPairs:
    """Ordered pairs of atoms of the same frame; every pair comes both ways.

    centres, neighbours (pairs,) index the batch's atoms; shifts (pairs, 3) in Å are
    the lattice vectors to add to the neighbour's position.
    """

    centres: Integers
    neighbours: Integers
    shifts: Floats


def is_static(batch: Batch, small: int = SMALL) -> bool:
    """Return True if the pairs depend on the sizes of the frames alone.

    small: the largest number of atoms of molecules whose pairs are all listed.
    """
    return not batch.pbc.any() and int(batch.sizes.max(initial=0)) <= small


def neighbour_pairs(batch: Batch, cutoff: float, small: int = SMALL) -> NeighbourPairs:
    """Return all pairs of small molecules; of others those within `cutoff` (Å).

    They are sorted by centre, then by neighbour. small: as for `is_static`. Raises
    InputError for a cutoff in a cell that would take all memory.
    """
    if is_static(batch, small):
        return static_pairs(tuple(batch.sizes.tolist()))
    if cutoff > FARTHEST and batch.pbc.any():
        raise InputError(
            f"expected a cutoff of at most {FARTHEST:g} Å in a cell, got {cutoff:g}; "
            "set `long_range: 12` of the potential"
        )
    parts = [_frame_pairs(batch, index, cutoff, small) for index in range(len(batch))]
    return _joined_pairs(parts)


@lru_cache(maxsize=64)
def static_pairs(sizes: tuple[int, ...]) -> NeighbourPairs:
    """Return all pairs of frames of these sizes; cached, do not write to it."""
    first = np.cumsum([0, *sizes])
    return _joined_pairs(
        [_all_pairs(n, int(a)) for n, a in zip(sizes, first[:-1], strict=True)]
    )


def _frame_pairs(batch: Batch, index: int, cutoff: float, small: int) -> NeighbourPairs:
    first, stop = map(int, batch.offsets[index : index + 2])
    if not batch.pbc[index].any():
        extent = np.linalg.norm(np.ptp(batch.positions[first:stop], axis=0))
        if stop - first <= small or extent < cutoff:
            return _all_pairs(stop - first, first)
    return _search_pairs(batch, index, cutoff)


def _all_pairs(size: int, first: int) -> NeighbourPairs:
    i, j = np.nonzero(~np.eye(size, dtype=np.bool_))
    return NeighbourPairs(i + first, j + first, np.zeros((len(i), 3)))


def _search_pairs(batch: Batch, index: int, cutoff: float) -> NeighbourPairs:
    from vesin import NeighborList  # it imports torch, which few users need

    first, stop = batch.offsets[index : index + 2]
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    cell = batch.cells[index]
    i, j, S = search.compute(
        points=batch.positions[first:stop],
        box=cell,
        periodic=batch.pbc[index].tolist(),
        quantities="ijS",
    )
    order = np.lexsort((*S.T[::-1], j, i))  # sums must not depend on the search
    centres = i[order].astype(np.int64) + first
    neighbours = j[order].astype(np.int64) + first
    return NeighbourPairs(centres, neighbours, S[order].astype(np.float64) @ cell)


def _joined_pairs(parts: list[NeighbourPairs]) -> NeighbourPairs:
    none = np.zeros(0, dtype=np.int64)
    return NeighbourPairs(
        np.concatenate([none, *(part.centres for part in parts)]),
        np.concatenate([none, *(part.neighbours for part in parts)]),
        np.concatenate([np.zeros((0, 3)), *(part.shifts for part in parts)]),
    )
