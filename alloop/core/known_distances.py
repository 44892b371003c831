"""Interatomic distances that occur in some frames, and frames that have others.

A scorer of the descriptors of a network hardly sees a bond that is stretched by a
third, whose errors are large. The distances of the pairs of each two elements fall into
intervals (bonds, angles, ...), and a stretched or compressed bond lies between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii

from alloop.core.batch import Batch
from alloop.core.units import Booleans, Floats, Integers

_MARGIN = 0.04  # Å, by which a distance may differ from all known ones
_FAR = 1.8  # summed covalent radii; longer distances do not count


@dataclass(frozen=True, slots=True)
class KnownDistances:
    """Intervals of distances between atoms of two elements, up to 1.8 summed radii.

    pairs: two atomic numbers each, the smaller one first, in ascending order.
    intervals: of each pair low, high, low, high, ... in Å, ascending.
    """

    pairs: tuple[tuple[int, int], ...]
    intervals: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, batch: Batch) -> "KnownDistances":
        """Return the distances of these frames, each with a margin of 0.04 Å."""
        elements, _, distances = _near_pairs(batch)
        pairs = np.unique(elements, axis=0)
        return cls(
            tuple((int(first), int(second)) for first, second in pairs),
            tuple(_merged(distances[(elements == x).all(axis=1)]) for x in pairs),
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "KnownDistances":
        """Return the distances from their fields as JSON values.

        ValueError for numbers that are no intervals.
        """
        pairs = tuple((int(first), int(second)) for first, second in fields["pairs"])
        intervals = tuple(tuple(map(float, x)) for x in fields["intervals"])
        rising = all(
            len(x) % 2 == 0 and bool((np.diff(x) > 0.0).all()) for x in intervals
        )
        if len(pairs) != len(intervals) or not rising:
            raise ValueError(f"expected intervals of distances, got {intervals}")
        return cls(pairs, intervals)

    def hold(self, batch: Batch) -> Booleans:
        """Return True for frames all of whose distances are known (frames,)."""
        elements, frames, distances = _near_pairs(batch)
        strange = np.ones(len(distances), dtype=np.bool_)
        for pair, edges in zip(self.pairs, self.intervals, strict=True):
            pairs = (elements == pair).all(axis=1)
            # an odd place among the edges is inside an interval
            strange[pairs] = np.searchsorted(edges, distances[pairs]) % 2 == 0
        held = np.ones(len(batch), dtype=np.bool_)
        held[frames[strange]] = False
        return held


def _near_pairs(batch: Batch) -> tuple[Integers, Integers, Floats]:
    """Return near pairs of atoms: elements (pairs, 2), frames and distances (pairs,).

    Elements are atomic numbers, the smaller one first. In cells distances are those to
    the nearest image, in Å.
    """
    parts = [
        np.stack(np.triu_indices(int(size), 1)) + start
        for size, start in zip(batch.sizes, batch.offsets, strict=False)
    ]
    i, j = np.concatenate([np.zeros((2, 0), dtype=np.int64), *parts], axis=1)
    frames = batch.frame_index[i]
    d = batch.positions[i] - batch.positions[j]
    if batch.pbc.any():
        inverse = np.linalg.pinv(batch.cells) * batch.pbc[:, None, :]
        shifts = np.round(np.einsum("pi,pij->pj", d, inverse[frames]))
        d = d - np.einsum("pi,pij->pj", shifts, batch.cells[frames])
    distances = np.sqrt(np.einsum("pi,pi->p", d, d))
    radii = covalent_radii[batch.numbers]
    near = distances < _FAR * (radii[i] + radii[j])
    elements = np.stack([batch.numbers[i[near]], batch.numbers[j[near]]], axis=1)
    return np.sort(elements, axis=1), frames[near], distances[near]


def _merged(distances: Floats) -> tuple[float, ...]:
    """Return the intervals that lie within the margin of a distance."""
    ordered = np.sort(distances)
    gaps = np.flatnonzero(np.diff(ordered) > 2.0 * _MARGIN)
    low = ordered[np.concatenate([[0], gaps + 1])] - _MARGIN
    high = ordered[np.concatenate([gaps, [len(ordered) - 1]])] + _MARGIN
    return tuple(np.stack([low, high], axis=1).ravel().tolist())
