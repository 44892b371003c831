"""Upper limits of force errors by surprise: how far off a frame may be, in eV/Å."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from alloop.core.units import Floats

_FARTHEST = 50.0  # of the arguments of sinh and exp, far from overflow
_BEYOND = 1.0  # reduced surprise past the last knot, up to which limits are continued


@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """The limit of a frame's largest force error on an atom (norm, eV/Å), by surprise.

    The logarithm of the limit is linear between `logarithms` at `knots` of reduced
    surprise, asinh((surprise - centre) / width); it is constant below the first knot
    and rises by `slope` beyond the last, so that it never falls. There is none (inf)
    where surprise lies far beyond the last knot, the largest that was seen. factor: by
    which all limits are raised. coverage: the promised share of frames below their
    limit. frames: number of labelled frames, none of them trained on, that it was made
    from; controls: number of control frames that the factor was made from, 0 where
    these are too few.
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

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> "ErrorLimits":
        """Return the limits from their fields as JSON values.

        ValueError for numbers that make no limits.
        """
        lists = {name: tuple(given[name]) for name in ("knots", "logarithms")}
        found = cls(**{**given, **lists})
        found._refuse_malformed()
        return found

    def _refuse_malformed(self) -> None:
        ends = (self.centre, self.width, self.slope, self.factor)
        numbers = (*ends, *self.knots, *self.logarithms)
        rising = all(a < b for a, b in pairwise(self.knots)) and all(
            a <= b for a, b in pairwise(self.logarithms)
        )
        whole = len(self.knots) == len(self.logarithms) > 0 and rising
        if not whole or not all(map(math.isfinite, numbers)):
            raise ValueError(f"expected finite limits that do not fall, got {self}")
        if min(self.width, self.factor) <= 0.0 or self.slope < 0.0:
            raise ValueError(f"expected positive limits, got {self}")
        if not 0.0 < self.coverage < 1.0:
            raise ValueError(f"expected a coverage below 1, got {self.coverage}")

    def limits(self, surprise: Floats) -> Floats:
        """Return the limits (frames,) in eV/Å; NaN where surprise is.

        inf where surprise is larger than any that the limits were made from.
        """
        x = reduced_surprise(surprise, self.centre, self.width)
        beyond = self.slope * np.maximum(x - self.knots[-1], 0.0)
        exponent = np.interp(x, self.knots, self.logarithms) + beyond
        found = self.factor * np.exp(np.minimum(exponent, _FARTHEST))
        out: Floats = np.where(x > self.knots[-1] + _BEYOND, np.inf, found)
        return out

    def limit(self, surprise: float) -> float:
        """Return the limit of one frame in eV/Å."""
        return float(self.limits(np.array([surprise]))[0])

    def surprise_at(self, error: float) -> float:
        """Return the surprise above which the limit is larger than an error in eV/Å.

        -inf where it is everywhere.
        """
        wanted = math.log(error / self.factor)
        place = int(np.searchsorted(self.logarithms, wanted, side="right")) - 1
        if place < 0:
            return -math.inf
        rise = wanted - self.logarithms[place]
        if place + 1 < len(self.knots):
            run = self.knots[place + 1] - self.knots[place]
            rise *= run / (self.logarithms[place + 1] - self.logarithms[place])
        else:
            rise = min(_BEYOND, rise / self.slope) if self.slope > 0.0 else _BEYOND
        reduced = min(self.knots[place] + rise, _FARTHEST)
        return self.centre + self.width * math.sinh(reduced)


def reduced_surprise(surprise: Floats, centre: float, width: float) -> Floats:
    """Return asinh((surprise - centre) / width): logarithmic far from the centre."""
    out: Floats = np.arcsinh((surprise - centre) / width)
    return out
