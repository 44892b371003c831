"""Conformal limits of errors by surprise, from frames whose true errors are known.

The logarithm of the largest force error on an atom is fitted by a line with a few
corners that never falls with surprise; the limit is that line plus the conformal
quantile of its residuals. Each residual is that of a frame which the line was not
fitted to (ten folds, as in cross-conformal prediction: Vovk, Ann. Math. Artif. Intell.
2015, 74, 9), so that few labels suffice. This is normalised conformal prediction in
logarithms (Lei et al., J. Am. Stat. Assoc. 2018, 113, 1094, section 5.2). It holds for
any scorer, and promises coverage on frames like those that it was made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite

import numpy as np

from alloop.core.batch import Batch
from alloop.core.error_limits import ErrorLimits, KnownDistances, reduced_surprise
from alloop.core.units import Floats
from alloop.scores.calibrate import conformal_quantile

_LINE_FRAMES = 10  # frames below which no line is fitted
_FOLDS = 10
_PER_PIECE = 10  # frames for each piece of the line
_MOST_PIECES = 6
_TINY = 1e-9  # eV/Å; smaller errors count as this


def needed_frames(coverage: float) -> int:
    """Return the least number of labelled frames that can promise the coverage."""
    return max(_LINE_FRAMES, _needed_ratios(coverage))


def _needed_ratios(coverage: float) -> int:
    return ceil(coverage / (1.0 - coverage) - 1e-9)


def fit_error_limits(
    surprise: Floats,
    errors: Floats,
    coverage: float,
    ratios: Sequence[float] = (),
    batch: Batch | None = None,
) -> ErrorLimits | None:
    """Return the limits; None with fewer than `needed_frames`.

    surprise, errors (frames,): of frames that the model was not trained on, errors in
    eV/Å. ratios: errors of control frames of MD over the limits (without factor) that
    the generations before promised for them. Where there are enough of these, a factor
    raises the limits so that they would have held for control frames too; it lowers
    none, since the ratios are those of older models. batch: the frames; with them,
    frames whose bonds are longer or shorter than in all of these have no limit.
    """
    finite = np.isfinite(surprise) & np.isfinite(errors)
    distances = None
    if batch is not None and finite.any():
        distances = KnownDistances.of(batch.select(np.flatnonzero(finite)))
    surprise, errors = surprise[finite], errors[finite]
    if len(errors) < needed_frames(coverage):
        return None
    centre, width = _centre_and_width(surprise)
    x = reduced_surprise(surprise, centre, width)
    # Errors scatter by factors around their trend, so that the margin is one.
    y = np.log(np.maximum(errors, _TINY))
    line = _fit_line(x, y)
    margin = conformal_quantile(_left_out_residuals(x, y), coverage)
    limits = ErrorLimits(
        coverage=coverage,
        frames=len(errors),
        centre=centre,
        width=width,
        knots=tuple(line.knots.tolist()),
        logarithms=tuple((line.heights + margin).tolist()),
        slope=line.slope,
        beyond=0.0,
        distances=distances,
    )
    usable = np.array([x for x in ratios if isfinite(x)])
    if len(usable) < _needed_ratios(coverage):
        return limits
    factor = max(1.0, conformal_quantile(usable, coverage))
    return replace(limits, factor=factor, controls=len(usable))


def _centre_and_width(surprise: Floats) -> tuple[float, float]:
    """Return the median and half the width of the central two thirds, or 1."""
    low, middle, high = np.quantile(surprise, (1 / 6, 1 / 2, 5 / 6))
    width = float(high - low) / 2
    return float(middle), width if width > 0.0 else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A line with corners at knots, that does not fall; slope: beyond the last."""

    knots: Floats
    heights: Floats
    slope: float

    def at(self, x: Floats) -> Floats:
        beyond = self.slope * np.maximum(x - self.knots[-1], 0.0)
        out: Floats = np.interp(x, self.knots, self.heights) + beyond
        return out


def _left_out_residuals(x: Floats, y: Floats) -> Floats:
    """Return the residual (frames,) of each frame from a line fitted without it."""
    # A line that has seen a frame comes too close to it: its residuals would promise
    # more than they hold for new frames.
    fold = np.arange(len(x)) % _FOLDS
    out = np.empty(len(x))
    for number in range(_FOLDS):
        members = fold == number
        out[members] = y[members] - _fit_line(x[~members], y[~members]).at(x[members])
    return out


def _fit_line(x: Floats, y: Floats) -> _Line:
    """Return the least-squares line whose pieces do not fall.

    Its corners divide the frames equally. Beyond the last, where frames that were left
    out may lie, it rises at least as one straight line through all frames would.
    """
    from scipy.optimize import nnls  # slow to import

    pieces = max(1, min(_MOST_PIECES, len(x) // _PER_PIECE))
    knots = np.unique(np.quantile(x, np.linspace(0.0, 1.0, pieces + 1)))
    if len(knots) < 2:
        return _Line(knots, np.full(1, y.mean()), 0.0)
    low, high = knots[:-1], knots[1:]
    inside = np.clip(x[:, None], low, high) - low  # (frames, pieces)
    # Rises must not be negative, the offset may: to nnls it is a difference of two.
    ones = np.ones((len(x), 1))
    (up, down, *slopes), _ = nnls(np.hstack([ones, -ones, inside]), y)
    rises = np.concatenate([[0.0], np.cumsum(slopes * (high - low))])
    offset = x - x.mean()
    straight = float(offset @ y) / float(offset @ offset)
    return _Line(knots, up - down + rises, max(float(slopes[-1]), straight, 0.0))
