"""The schedule of one stage's optimisation: plain values, as a YAML file can hold."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from alloop.core.errors import InputError

Decay: TypeAlias = Literal["cosine", "exponential", "wsd"]
Compile: TypeAlias = bool | Literal["auto"]

# CPU seconds, measured on PaiNN: the cost of compiling with an empty cache, and what
# each step then saves for each edge in its batch (`Network.compiled_saving`: beside).
COMPILING = 80.0
SAVED_EDGE = 2e-5


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one stage's optimisation.

    optimiser: "muon" for the matrices that mix features and AdamW for the rest, or
    "adamw" for all (`alloop.training.optimisers`). lr is the peak learning rate of
    both, reached after `warmup` steps; ema is the decay of the averaged weights, which
    are the result; clip bounds the gradient's norm; energy is ρ of ASTEROID's Eq. 1;
    norm is the force loss, "l2" (mean length of an atom's error) or "l1" (mean of its
    components). stress is the weight of the errors of virials, beside those of forces
    and energies, where labels have a stress. With validation frames, errors are
    computed every `every` steps; with a patience (in steps) the stage stops when they
    have not fallen for so long, and keeps the best weights.

    decay: the way from the peak to `floor` times the peak at the last step: "cosine",
    "exponential", or "wsd" (warm up, stay, decay: constant for the share `hold` of the
    steps, then half a cosine). weight_decay is AdamW's and Muon's, on matrices only.
    layer_decay is the factor of the learning rate from each layer to the one below it.
    epochs and seconds shorten the stage: passes over its frames, and CPU seconds, which
    a measurement at the start turns into steps. compile: "auto" compiles where it saves
    time (see `worth_compiling`).

    Raises InputError for an exponential decay to zero.
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
    decay: Decay = "cosine"
    floor: float = 0.0
    hold: float = 0.8
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    epochs: int | None = None
    seconds: float | None = None
    compile: Compile = "auto"
    optimiser: Literal["muon", "adamw"] = "muon"
    stress: float = 0.1

    def __post_init__(self) -> None:
        if self.decay == "exponential" and not self.floor > 0.0:
            raise InputError(
                f"expected a floor above 0 for an exponential decay, got {self.floor}; "
                "set floor: 0.01, or decay: cosine"
            )


def learning_rate(step: int, steps: int, schedule: Schedule) -> float:
    """Return the learning rate of a step: linear warm-up to the peak, times decay."""
    warm = min((step + 1) / max(schedule.warmup, 1), 1.0)
    return schedule.lr * warm * decay_factor(step / steps, schedule)


def decay_factor(x: float, schedule: Schedule) -> float:
    """Return the share of the peak that is left after the share x of the steps."""
    if schedule.decay == "exponential":
        return math.pow(schedule.floor, x)
    hold = schedule.hold if schedule.decay == "wsd" else 0.0
    late = 0.0 if x <= hold else (x - hold) / (1.0 - hold)
    half = 0.5 * (1.0 + math.cos(math.pi * late))
    return schedule.floor + (1.0 - schedule.floor) * half


def averaging_decay(step: int, decay: float) -> float:
    """Return the decay of the weights' average; less at first, to forget the start."""
    return min(decay, (step + 1) / (step + 10))


def bounded_steps(steps: int, frames: int, schedule: Schedule) -> int:
    """Return the number of steps of a stage, no more than its epochs allow."""
    if schedule.epochs is None:
        return steps
    return min(steps, schedule.epochs * max(1, frames // schedule.batch))


def worth_compiling(steps: int, edges: int, saved: float, schedule: Schedule) -> bool:
    """Return True if a program for so many steps on so many edges should be compiled.

    saved: CPU seconds that a step saves by it, beside those of its edges. It should
    where the schedule asks for it or, for "auto", where it saves more than it costs by
    the figures above. The rule looks at no clock and at nothing that was compiled
    before, since compiled and plain steps differ in their last bits, and a resumed
    training must decide alike.
    """
    if schedule.compile == "auto":
        return steps * (saved + SAVED_EDGE * edges) >= COMPILING
    return schedule.compile
