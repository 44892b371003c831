"""Ordered pairs (centre, neighbour) of the interacting atoms of a batch, numpy only.

Small molecules list all pairs once: the list then depends on nothing but the sizes of
the frames, and MD needs no search. Pairs beyond a cutoff must be removed by an envelope
in the network. Periodic and large frames are searched (vesin).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.units import Floats, Integers

FARTHEST = 60.0  # Å, the largest cutoff in a cell
LARGE = 64  # atoms; above, a search is cheaper than the pairs it saves


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourPairs:
    """Ordered pairs of atoms of the same frame; every pair comes both ways.

    centres, neighbours (pairs,) index the batch's atoms; shifts (pairs, 3) in Å are
    the lattice vectors to add to the neighbour's position.
    """

    centres: Integers
    neighbours: Integers
    shifts: Floats


def is_static(batch: Batch) -> bool:
    """Return True if the pairs depend on the sizes of the frames alone."""
    return not batch.pbc.any() and int(batch.sizes.max(initial=0)) <= LARGE


def neighbour_pairs(batch: Batch, cutoff: float) -> NeighbourPairs:
    """Return all pairs of small molecules; of others those within `cutoff` (Å).

    Raises InputError for a cutoff in a cell that would take all memory.
    """
    if is_static(batch):
        return static_pairs(tuple(batch.sizes.tolist()))
    if cutoff > FARTHEST and batch.pbc.any():
        raise InputError(
            f"expected a cutoff of at most {FARTHEST:g} Å in a cell, got {cutoff:g}; "
            "set `long_range: 12` of the potential"
        )
    parts = [
        _frame_pairs(batch, index, cutoff, int(first))
        for index, first in enumerate(batch.offsets[:-1])
    ]
    return _joined_pairs(parts)


@lru_cache(maxsize=64)
def static_pairs(sizes: tuple[int, ...]) -> NeighbourPairs:
    """Return all pairs of frames of these sizes; cached, do not write to it."""
    first = np.cumsum([0, *sizes])
    return _joined_pairs(
        [_all_pairs(n, int(a)) for n, a in zip(sizes, first[:-1], strict=True)]
    )


def _frame_pairs(batch: Batch, index: int, cutoff: float, first: int) -> NeighbourPairs:
    size = int(batch.sizes[index])
    if not batch.pbc[index].any() and size <= LARGE:
        return _all_pairs(size, first)
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
