"""A cost that grows with size: an overhead and a power law, fitted in logarithms.

    value = base * (1 + (size / crossing)**power) * (open_shell if spin else 1)

What a few measurements do not determine comes from a prior: maximum a posteriori in the
logarithms (Tarantola, Inverse Problem Theory, 2005, section 3.2), with Student's t for
the measurements, so that single outliers count little. Pure numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from alloop.core.units import Floats

_FRAMES = 0.15  # scatter between frames of one molecule, in logarithms
_MOLECULES = 0.2  # scatter of molecules around the curve, likewise
_BELIEF = 6.0  # molecules that the usual scatter counts for in the fit of scatter
_TAIL = 4.0  # degrees of freedom of Student's t
_STEPS = 100  # of Gauss-Newton at most; ten or so are usual
_STILL = 1e-10  # the fit has converged when no step is longer
_ROUNDING = 1e-9  # of the posterior's logarithm, below which a rise is none


@dataclass(frozen=True, slots=True)
class Prior:
    """The parameters expected before anything is measured.

    `doubt` holds standard deviations of their logarithms, in this order.
    """

    base: float
    crossing: float
    power: float
    open_shell: float
    doubt: tuple[float, float, float, float] = (1.2, 0.5, 0.15, 0.3)


@dataclass(frozen=True, slots=True)
class Point:
    """The median of `count` measurements of one kind of molecule."""

    size: float
    spin: bool
    value: float
    count: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve.

    scatter: of molecules around it; covariance: of the logarithms of its four
    parameters.
    """

    base: float
    crossing: float
    power: float
    open_shell: float
    scatter: float = _MOLECULES
    covariance: tuple[tuple[float, ...], ...] = ((0.0,) * 4,) * 4

    def value(self, size: float, spin: bool) -> float:
        """Return the value at a size, with or without unpaired electrons."""
        return float(
            np.exp(
                _model_and_derivatives(self._logs(), _curve_features(size, spin))[0][0]
            )
        )

    def log_deviation(self, size: float, spin: bool) -> float:
        """Return the standard deviation of the log of a new molecule's next value."""
        slope = _model_and_derivatives(self._logs(), _curve_features(size, spin))[1][0]
        variance = slope @ np.reshape(self.covariance, (4, 4)) @ slope
        return float(np.sqrt(variance + self.scatter**2 + _FRAMES**2))

    def molecule_factor(self, point: Point) -> tuple[float, float]:
        """Return a measured molecule's own factor on the curve, and its uncertainty.

        The factor is the molecule's mean offset, shrunk towards 1 as a random effect;
        the uncertainty is the standard deviation of the logarithm of its next value.
        """
        noise, scatter = _FRAMES**2 / point.count, self.scatter**2
        share = scatter / (scatter + noise)
        factor = (point.value / self.value(point.size, point.spin)) ** share
        return float(factor), float(np.sqrt(share * noise + _FRAMES**2))

    def _logs(self) -> Floats:
        return np.log([self.base, self.crossing, self.power, self.open_shell])


def fit_curve(points: Sequence[Point], prior: Prior) -> Curve:
    """Return the most probable curve through the points; without points the prior's.

    The base has no prior as soon as there is a point, so that seconds of any machine
    can be fitted.
    """
    mean = np.log([prior.base, prior.crossing, prior.power, prior.open_shell])
    trust = np.diag(np.array(prior.doubt, dtype=np.float64) ** -2)
    if not points:
        return _make_curve(mean, _pseudo_inverse(trust), _MOLECULES)
    trust[0, 0] = 0.0
    where = np.array([(np.log(p.size), p.spin) for p in points], dtype=np.float64)
    logs = np.log([p.value for p in points])
    noise = _FRAMES**2 / np.array([p.count for p in points])
    start = mean.copy()
    start[0] += np.median(logs - _model_and_derivatives(mean, where)[0])
    theta, _ = _gauss_newton(start, mean, trust, (where, logs, noise + _MOLECULES**2))
    scatter = _robust_scatter(logs - _model_and_derivatives(theta, where)[0])
    theta, covariance = _gauss_newton(
        theta, mean, trust, (where, logs, noise + scatter**2)
    )
    return _make_curve(theta, covariance, scatter)


def _gauss_newton(
    theta: Floats, mean: Floats, trust: Floats, data: tuple[Floats, Floats, Floats]
) -> tuple[Floats, Floats]:
    """Return the fitted parameters and their covariance, by reweighted Gauss-Newton.

    Steps are limited to 0.5 in the logarithms, so that the fit does not jump, and
    halved until the posterior falls no more: prices that contradict the curve can
    otherwise make them go to and fro for ever.
    """
    where, logs, variance = data
    loss = partial(_negative_log_posterior, mean=mean, trust=trust, data=data)
    for _ in range(_STEPS):
        values, slope = _model_and_derivatives(theta, where)
        off = logs - values
        # Student's t: the farther off a point, the less it counts.
        weight = (_TAIL + 1) / (_TAIL * variance + off**2)
        normal = slope.T @ (weight[:, None] * slope) + trust
        push = slope.T @ (weight * off) - trust @ (theta - mean)
        step = np.linalg.solve(normal, push)
        # The base sets no limit: logarithms are linear in its own, and it may be far
        # off.
        step *= min(1.0, 0.5 / (np.abs(step[1:]).max() + 1e-12))
        bound = loss(theta) + _ROUNDING
        while loss(theta + step) > bound and np.abs(step).max() > _STILL:
            step /= 2
        theta = theta + step
        if np.abs(step).max() < _STILL:
            break
    return theta, _pseudo_inverse(normal)


def _negative_log_posterior(
    theta: Floats, mean: Floats, trust: Floats, data: tuple[Floats, Floats, Floats]
) -> float:
    where, logs, variance = data
    off = logs - _model_and_derivatives(theta, where)[0]
    tails = (_TAIL + 1) / 2 * np.log1p(off**2 / (_TAIL * variance)).sum()
    return float(tails + (theta - mean) @ trust @ (theta - mean) / 2)


def _model_and_derivatives(theta: Floats, where: Floats) -> tuple[Floats, Floats]:
    """Return logarithms of the curve (points,) and their derivatives (points, 4)."""
    base, crossing, log_power, open_shell = theta
    power = np.exp(log_power)
    # log(1 + (size / crossing)^power) is logaddexp(0, height).
    height = power * (where[:, 0] - crossing)
    share = 1 / (1 + np.exp(-height))  # of the part that grows
    ones = np.ones_like(height)
    slopes = (ones, -power * share, height * share, where[:, 1])
    logs = base + np.logaddexp(0.0, height) + open_shell * where[:, 1]
    return logs, np.stack(slopes, axis=1)


def _curve_features(size: float, spin: bool) -> Floats:
    return np.array([[np.log(size), float(spin)]])


def _robust_scatter(off: Floats) -> float:
    """Return the root mean square of the residuals, with outliers capped.

    With few points it stays close to `_MOLECULES`.
    """
    # As if `_BELIEF` molecules of the usual scatter had been measured before.
    seen = np.minimum(off**2, (3 * _MOLECULES) ** 2).sum()
    return float(np.sqrt((_BELIEF * _MOLECULES**2 + seen) / (_BELIEF + len(off))))


def _pseudo_inverse(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _make_curve(theta: Floats, covariance: Floats, scatter: float) -> Curve:
    base, crossing, power, open_shell = (float(x) for x in np.exp(theta))
    spreads = tuple(tuple(row) for row in covariance.tolist())
    return Curve(
        base=base,
        crossing=crossing,
        power=power,
        open_shell=open_shell,
        scatter=scatter,
        covariance=spreads,
    )
