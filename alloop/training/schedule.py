"""How one stage walks downhill: facts, so that a YAML file can say them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one stage walks downhill.

    lr is Adam's peak step, reached after `warmup` steps and cosined to 0 at the last;
    ema is the decay of the averaged weights, which are the result; clip bounds the
    gradient's norm; energy is ρ of ASTEROID's Eq. 1; norm is the force loss, "l2"
    (mean length of an atom's error) or "l1" (mean of its components). With validation
    frames, errors are taken each `every` steps; with a patience (in steps) the stage
    stops when they have not fallen for so long, and keeps the best weights.
    """

    lr: float = 5e-3
    batch: int = 10
    warmup: int = 50
    ema: float = 0.99
    clip: float = 5.0
    energy: float = 0.05
    norm: Literal["l2", "l1"] = "l2"
    every: int = 100
    patience: int | None = None
