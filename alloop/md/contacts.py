"""Distances inside molecules, measured in summed covalent radii."""

from dataclasses import dataclass, replace

import numpy as np
from ase.data import covalent_radii

from alloop.core.arrays import (
    Place,
    indexed_maxima,
    indexed_minima,
    library,
    on_host,
    to_numpy,
)
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers


@dataclass(frozen=True, slots=True, eq=False)
class WalkerPairs:
    """All pairs of atoms that share a walker.

    first, second, walker (pairs,); radii (pairs,): summed covalent radii in Å; cells
    and images (pairs, 3, 3): cells and their inverses where a walker is periodic,
    None where none is. known: the array of the walkers' cells that they come from.
    place: where the arrays are kept.
    """

    first: Integers
    second: Integers
    walker: Integers
    radii: Floats
    cells: Floats | None
    images: Floats | None
    known: Floats | None = None
    place: Place = on_host


def covalent_lengths(numbers: Integers) -> Floats:
    """Return the summed covalent radii of all pairs of atoms (atoms, atoms), Å."""
    radii = covalent_radii[numbers]
    lengths: Floats = radii[:, None] + radii
    return lengths


def all_pairs(batch: Batch, place: Place = on_host) -> WalkerPairs:
    """Return the pairs of each frame of a batch in numpy's arrays, frame after frame.

    place: where they are wanted.
    """
    parts = [_triangle_pairs(size) + start for start, size in _size_blocks(batch)]
    both = np.concatenate([np.zeros((2, 0), dtype=np.int64), *parts], axis=1)
    walker = batch.frame_index[both[0]]
    radius = covalent_radii[batch.numbers]
    periodic = bool(batch.pbc.any())
    return WalkerPairs(
        first=place(both[0]),
        second=place(both[1]),
        walker=place(walker),
        radii=place(radius[both[0]] + radius[both[1]]),
        cells=place(batch.cells[walker]) if periodic else None,
        images=place(_inverse_cells(batch)[walker]) if periodic else None,
        known=batch.cells if periodic else None,
        place=place,
    )


def pairs_in_cells(pairs: WalkerPairs, batch: Batch) -> WalkerPairs:
    """Return the same pairs in the present cells of the batch."""
    if pairs.cells is None or pairs.known is batch.cells:
        return pairs
    inverse = pairs.place(_inverse_cells(batch))
    cells, images = batch.cells[pairs.walker], inverse[pairs.walker]
    return replace(pairs, cells=cells, images=images, known=batch.cells)


def relative_distances(pairs: WalkerPairs, positions: Floats) -> Floats:
    """Return distances over summed covalent radii (pairs,), between nearest images."""
    functions = library(positions)
    d = positions[pairs.first] - positions[pairs.second]
    if pairs.cells is not None and pairs.images is not None:
        shifts = functions.round(functions.einsum("pi,pij->pj", d, pairs.images))
        d = d - functions.einsum("pi,pij->pj", shifts, pairs.cells)
    out: Floats = functions.sqrt(functions.einsum("pi,pi->p", d, d)) / pairs.radii
    return out


def closest_distance(pairs: WalkerPairs, relative: Floats, walkers: int) -> Floats:
    """Return each walker's smallest relative distance (walkers,); inf for one atom."""
    out: Floats = indexed_minima(pairs.walker, relative, walkers, np.inf)
    return out


def widest_distance(
    bonds: Integers, owner: Integers, relative: Floats, walkers: int
) -> Floats:
    """Return each walker's largest relative distance of some pairs (walkers,).

    bonds, owner (bonds,): indices of these pairs, and their walkers. 0 for walkers
    without any.
    """
    out: Floats = indexed_maxima(owner, relative[bonds], walkers, 0.0)
    return out


def closest_contact(frame: Frame) -> float:
    """Return the smallest distance in a frame over its summed covalent radii."""
    pairs = all_pairs(pack_frames([frame]))
    return float(
        closest_distance(pairs, relative_distances(pairs, frame.positions), 1)[0]
    )


def _size_blocks(batch: Batch) -> list[tuple[int, int]]:
    return [(span.start, span.stop - span.start) for span in batch.atom_slices()]


def _triangle_pairs(size: int) -> Integers:
    return np.array(np.triu_indices(size, 1), dtype=np.int64)


def _inverse_cells(batch: Batch) -> Floats:
    """Return inverse cells (frames, 3, 3), zero along directions that do not repeat."""
    inverse = np.linalg.pinv(to_numpy(batch.cells))
    return np.where(batch.pbc[:, None, :], inverse, 0.0)
