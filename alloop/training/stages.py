"""A training as a list of stages: frozen values, as a YAML file can list them.

Each stage is optimised with a schedule.

The usual lists are ASTEROID (Bukharin et al., Machine Learning Force Fields with Data
Cost Aware Training, ICML 2023), and the standard training it is compared with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from alloop.core.errors import InputError
from alloop.core.levels import Fidelity as Fidelity
from alloop.core.settings import COUNT, SHARE, WHOLE, setting

Decay: TypeAlias = Literal["cosine", "exponential", "wsd"]
Compile: TypeAlias = bool | Literal["auto"]
Norm: TypeAlias = Literal["l2", "l1"]
Optimiser: TypeAlias = Literal["muon", "adamw"]

# CPU seconds, measured on PaiNN: the cost of compiling with an empty cache, and what
# each step then saves for each edge in its batch (`Network.compiled_saving`: beside).
COMPILING = 80.0
SAVED_EDGE = 2e-5


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one stage's optimisation.

    optimiser: "muon" moves the matrices that mix features, and AdamW the rest; "adamw"
    all (`alloop.training.optimisers`). energy is ρ of ASTEROID's Eq. 1. patience: the
    stage keeps the best weights where it ends early.

    decay: the way from the peak to `floor` times the peak at the last step: "cosine",
    "exponential", or "wsd" (warm up, stay, decay: constant for the share `hold` of the
    steps, then half a cosine). seconds shorten the stage: CPU seconds, which a
    measurement at the start turns into steps. compile: "auto" compiles where it saves
    time (see `worth_compiling`).

    Raises InputError for an exponential decay to zero.
    """

    lr: float = setting(5e-3, "peak learning rate", gt=0)
    batch: int = setting(10, "frames in a training step", **COUNT)
    warmup: int = setting(50, "steps until the peak learning rate", **WHOLE)
    ema: float = setting(
        0.99,
        "decay of the running average of the weights, which is the result",
        **SHARE,
    )
    clip: float = setting(5.0, "largest norm of the gradient", gt=0)
    energy: float = setting(0.05, "weight of energies in the loss", **SHARE)
    norm: Norm = setting(
        "l2",
        "force loss: mean length of an atom's error (l2) or mean of its components "
        "(l1)",
    )
    every: int = setting(100, "steps between two validation errors", **COUNT)
    patience: int | None = setting(
        None,
        "steps without a smaller validation error after which the stage ends; no limit "
        "by default",
        **COUNT,
    )
    decay: Decay = setting(
        "cosine",
        "fall of the learning rate: cosine, or wsd, which stays at the peak first",
    )
    floor: float = 0.0
    hold: float = setting(
        0.8, "share of the steps at the peak, with `decay: wsd`", ge=0, lt=1
    )
    weight_decay: float = setting(0.0, "decoupled weight decay of the matrices", ge=0)
    layer_decay: float = setting(
        1.0,
        "factor of the learning rate from each layer to the one below it",
        gt=0,
        le=1,
    )
    epochs: int | None = setting(
        None, "most passes through the frames; no limit by default", **COUNT
    )
    seconds: float | None = None
    compile: Compile = setting(
        "auto",
        "whether training steps are compiled; auto: in stages that are long enough",
    )
    optimiser: Optimiser = setting("muon", "optimiser of the weight matrices")
    stress: float = setting(0.1, "weight of the stress of cells in the loss", ge=0)

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


@dataclass(frozen=True, slots=True)
class Adapters:
    """The size of low-rank adapters (`alloop.training.adapters`)."""

    rank: int = setting(4, "columns of the first factor, rows of the second", **COUNT)
    alpha: float = setting(
        4.0, "factor of the product of both, in units of 1/rank", gt=0
    )


SCHEDULE = Schedule()
STEPS = (300, 2700, 1000)  # θ0, pretraining, fine-tuning
FINE_TUNING = 1e-3  # peak learning rate for few labels and a good start

Source: TypeAlias = Literal["cheap", "expensive", "both"]
Start: TypeAlias = Literal["scratch", "previous", "parent"]
Weights: TypeAlias = Literal["uniform", "bias", "scaled"]
Targets: TypeAlias = Literal["plain", "scaled", "difference", "corrected"]
Loss: TypeAlias = Literal["labels", "score"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One optimisation: its labels, its starting network, its weights and its length.

    start: "scratch" (a new network), "previous" (the stage before), "parent" (the last
    generation's network; scratch where there is none).

    weights: "bias" weights cheap frames by their disagreement with the last stage on
    expensive labels, "scaled" likewise, after the best common factor between them.

    labels: "plain"; "scaled": cheap labels times that factor; "corrected": cheap labels
    plus what expensive ones changed; "difference": expensive labels less the network so
    far, learned by a network of its own that only serves to correct.

    loss: "score" learns from the distribution of the frames and not from labels: they
    must be drawn from the level's equilibrium at `temperature` (K).
    """

    name: str
    on: Source
    steps: int
    start: Start = setting(
        "previous",
        "network to begin with: a new one, that of the stage before, or that of the "
        "last generation",
    )
    weights: Weights = setting(
        "uniform",
        "weights of cheap frames: equal, or by their bias, plain or after the best "
        "common factor",
    )
    schedule: Schedule = SCHEDULE
    labels: Targets = setting(
        "plain", "labels as they are, or changed by what earlier stages learned"
    )
    mix: float = setting(
        0.5, "share of expensive frames in a step, with `on: both`", gt=0, lt=1
    )
    loss: Loss = setting(
        "labels",
        "errors of labels, or the score of where frames lie (`alloop train` alone)",
    )
    temperature: float = 0.0
    noise: float = setting(
        0.0,
        "width of the noise that smooths the frames, Å, with `loss: score`",
        ge=0,
    )

    @property
    def levels(self) -> tuple[Fidelity, ...]:
        """The levels whose labels the stage needs."""
        return ("cheap", "expensive") if self.on == "both" else (self.on,)

    @property
    def program(self) -> tuple[object, ...]:
        """The settings that stages must share to use one compiled program."""
        schedule = self.schedule
        scored = (self.temperature, self.noise) if self.loss == "score" else ()
        losses = (schedule.norm, schedule.stress)
        return (schedule.batch, *losses, self.loss, *scored)


def program_steps(stage: Stage, stages: Sequence[Stage]) -> int:
    """Return the total number of steps of the stages that share a stage's program.

    The stage's own steps are included.
    """
    return sum(other.steps for other in stages if other.program == stage.program)


def asteroid_stages(
    steps: tuple[int, int, int] = STEPS,
    schedule: Schedule = SCHEDULE,
    fine_tuning: float = FINE_TUNING,
    weights: Weights = "bias",
) -> tuple[Stage, ...]:
    """Return ASTEROID's stages: θ0, weighted pretraining and fine-tuning.

    θ0 is trained on expensive labels, pretraining uses cheap ones, and fine-tuning,
    whose peak learning rate is `fine_tuning`, expensive ones. Uniform weights need no
    θ0: pretraining gets its steps.
    """
    fine_schedule = replace(schedule, lr=fine_tuning)
    teacher = Stage("teacher", "expensive", steps[0], "scratch", schedule=schedule)
    cheap = Stage(
        "pretraining",
        on="cheap",
        steps=steps[1],
        start="scratch",
        weights=weights,
        schedule=schedule,
    )
    fine = Stage("fine-tuning", "expensive", steps[2], schedule=fine_schedule)
    if weights == "uniform":
        return replace(cheap, steps=steps[0] + steps[1]), fine
    return teacher, cheap, fine


def standard_stages(
    steps: int = sum(STEPS), schedule: Schedule = SCHEDULE
) -> tuple[Stage]:
    """Return one stage on expensive labels, by default with all of ASTEROID's steps."""
    return (Stage("standard", "expensive", steps, "scratch", schedule=schedule),)
