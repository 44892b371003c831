"""The scorer of a campaign, and thresholds of surprise from held-out frames."""

from dataclasses import dataclass, field
from math import ceil, inf

import numpy as np

from alloop.core.errors import InputError
from alloop.core.roles import Scorer
from alloop.core.settings import setting
from alloop.core.units import Floats
from alloop.scores.leverage import LeverageScorer

LEAST = 10  # held-out frames below which there is no threshold at all


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """The scorer of each generation, and how its threshold is set.

    landmarks: number of frames kept, from which candidates should differ.
    """

    scorer: Scorer = field(default_factory=LeverageScorer)
    quantile: float = setting(
        0.95,
        "quantile of the surprise of held-out frames above which a frame is flagged",
        gt=0,
        lt=1,
    )
    landmarks: int = 512
    coverage: float = setting(
        0.9,
        "share of frames whose largest force error the limits of errors promise to "
        "hold",
        gt=0,
        lt=1,
    )
    error: float | None = setting(
        None,
        "flag frames whose largest force error may be above this, eV/Å, in place of "
        "those above the quantile",
        gt=0,
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and the method that gave it.

    value: None where it is not calibrated. method: "conformal" (its false-alarm rate on
    exchangeable frames is at most 1 - quantile), "quantile" (empirical, with too few
    frames for that guarantee) or "not calibrated". n: number of held-out frames;
    needed: number that the conformal guarantee takes.
    """

    value: float | None
    method: str
    n: int
    needed: int
    quantile: float

    @property
    def reason(self) -> str:
        """The method and the number of frames, as a phrase for people."""
        if self.method == "conformal":
            return f"conformal on {self.n} held-out frames"
        if self.method == "quantile":
            return f"quantile of {self.n} held-out frames; {self.needed} would promise"
        return f"not calibrated: {self.n} held-out frames, at least {LEAST} are needed"


def calibrate_threshold(surprise: Floats, quantile: float) -> Calibration:
    """Return the threshold that a share of 1 - quantile of ordinary frames exceeds."""
    _check_quantile(quantile)
    n = len(surprise)
    needed = ceil(quantile / (1.0 - quantile) - 1e-9)
    if n < LEAST:
        return Calibration(None, "not calibrated", n, needed, quantile)
    if n < needed:
        value = float(np.quantile(surprise, quantile))
        return Calibration(value, "quantile", n, needed, quantile)
    value = conformal_quantile(surprise, quantile)
    return Calibration(value, "conformal", n, needed, quantile)


def surprise_threshold(surprise: Floats, quantile: float) -> float | None:
    """Return the threshold of `calibrate_threshold`, None with too few frames."""
    return calibrate_threshold(surprise, quantile).value


def conformal_quantile(scores: Floats, level: float) -> float:
    """Return the ⌈(n + 1) level⌉-th smallest of n scores, inf where n is too small.

    Split conformal prediction (Lei et al., J. Am. Stat. Assoc. 2018, 113, 1094): a new
    exchangeable score does not exceed it with a probability of at least `level`. No
    method of `np.quantile` has this rank.
    """
    _check_quantile(level)
    rank = ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else inf


def _check_quantile(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(f"expected a quantile between 0 and 1, got {level}")
