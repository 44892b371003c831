"""Upper limits of force errors by surprise: how far off a frame may be, in eV/Å.

A scorer of the descriptors of a network hardly sees a bond that is stretched by a
third, whose errors are large. So interatomic distances are looked at too: those of the
pairs of each two elements fall into intervals (bonds, angles, ...), and a stretched or
compressed bond lies between them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from ase.data import covalent_radii

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
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
        # Pairs of elements that none of the frames had stay strange.
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
        # The pseudo-inverse, since vectors without a period may be 0. In a strongly
        # skewed cell rounding misses nearer images, and a distance comes out too long.
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


_FARTHEST = 50.0  # of the arguments of sinh and exp, far from overflow


@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """The limit of a frame's largest force error on an atom (norm, eV/Å), by surprise.

    The logarithm of the limit is linear between `logarithms` at `knots` of reduced
    surprise, asinh((surprise - centre) / width); it is constant below the first knot,
    so that it never falls. There is none (inf) where no frame that it was made from
    shows how large the error is: where surprise lies above the last knot, the largest
    that was seen, and where a bond is longer or shorter than in all of them (distances;
    not looked at where None). factor: by which all limits are raised. coverage: the
    promised share of frames below their limit. frames: number of labelled frames, none
    of them trained on, that it was made from; controls: number of control frames that
    the factor was made from, 0 where these are too few. examined: number of frames of
    the examination among `frames`; of these, `told` had a limit before their
    labels, and `held` erred by less than it. beyond: reduced surprise past the last
    knot up to which limits go on, rising by `slope`; 0 but in limits of an older
    alloop.
    """

    coverage: float
    frames: int
    centre: float
    width: float
    knots: tuple[float, ...]
    logarithms: tuple[float, ...]
    slope: float
    factor: float = 1.0
    controls: int = 0
    beyond: float = 1.0
    distances: KnownDistances | None = None
    examined: int = 0
    told: int = 0
    held: int = 0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "ErrorLimits":
        """Return the limits from their fields as JSON values.

        ValueError for numbers that make no limits.
        """
        lists = {name: tuple(fields[name]) for name in ("knots", "logarithms")}
        distances = fields.get("distances")
        if distances is not None:
            distances = KnownDistances.from_fields(distances)
        limits = cls(**{**fields, **lists, "distances": distances})
        limits._refuse_malformed()
        return limits

    def _refuse_malformed(self) -> None:
        ends = (self.centre, self.width, self.slope, self.factor, self.beyond)
        numbers = (*ends, *self.knots, *self.logarithms)
        rising = all(a < b for a, b in pairwise(self.knots)) and all(
            a <= b for a, b in pairwise(self.logarithms)
        )
        complete = len(self.knots) == len(self.logarithms) > 0 and rising
        if not complete or not all(map(math.isfinite, numbers)):
            raise ValueError(f"expected finite limits that do not fall, got {self}")
        if min(self.width, self.factor) <= 0.0 or min(self.slope, self.beyond) < 0.0:
            raise ValueError(f"expected positive limits, got {self}")
        if not 0.0 < self.coverage < 1.0:
            raise ValueError(f"expected a coverage below 1, got {self.coverage}")

    def limits(self, surprise: Floats, batch: Batch | None = None) -> Floats:
        """Return the limits (frames,) in eV/Å; NaN where surprise is.

        inf where the frames that the limits were made from show none. batch: the
        frames; without them their distances are not looked at.
        """
        x = reduced_surprise(surprise, self.centre, self.width)
        beyond = self.slope * np.maximum(x - self.knots[-1], 0.0)
        exponent = np.interp(x, self.knots, self.logarithms) + beyond
        errors = self.factor * np.exp(np.minimum(exponent, _FARTHEST))
        out: Floats = np.where(x > self.knots[-1] + self.beyond, np.inf, errors)
        if batch is not None and self.distances is not None:
            out[~self.distances.hold(batch) & ~np.isnan(out)] = np.inf
        return out

    def limit(self, surprise: float, frame: Frame | None = None) -> float:
        """Return the limit of one frame in eV/Å, see `limits`."""
        batch = None if frame is None else pack_frames([frame])
        return float(self.limits(np.array([surprise]), batch)[0])

    def surprise_at(self, error: float) -> float:
        """Return the surprise above which the limit is larger than an error in eV/Å.

        -inf where it is everywhere.
        """
        logarithm = math.log(error / self.factor)
        place = int(np.searchsorted(self.logarithms, logarithm, side="right")) - 1
        if place < 0:
            return -math.inf
        rise = logarithm - self.logarithms[place]
        if place + 1 < len(self.knots):
            run = self.knots[place + 1] - self.knots[place]
            rise *= run / (self.logarithms[place + 1] - self.logarithms[place])
        else:
            largest = self.beyond
            rise = min(largest, rise / self.slope) if self.slope > 0.0 else largest
        reduced = min(self.knots[place] + rise, _FARTHEST)
        return self.centre + self.width * math.sinh(reduced)


def reduced_surprise(surprise: Floats, centre: float, width: float) -> Floats:
    """Return asinh((surprise - centre) / width): logarithmic far from the centre."""
    out: Floats = np.arcsinh((surprise - centre) / width)
    return out
