"""A training as a list of stages: frozen values, as a YAML file can list them.

The usual lists are ASTEROID (Bukharin et al., Machine Learning Force Fields with Data
Cost Aware Training, ICML 2023), and the standard training it is compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from alloop.core.levels import Fidelity as Fidelity
from alloop.core.settings import setting
from alloop.training.schedule import Schedule

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
    cheap = Stage("pretraining", "cheap", steps[1], "scratch", weights, schedule)
    fine = Stage("fine-tuning", "expensive", steps[2], schedule=fine_schedule)
    if weights == "uniform":
        return replace(cheap, steps=steps[0] + steps[1]), fine
    return teacher, cheap, fine


def standard_stages(
    steps: int = sum(STEPS), schedule: Schedule = SCHEDULE
) -> tuple[Stage]:
    """Return one stage on expensive labels, by default with all of ASTEROID's steps."""
    return (Stage("standard", "expensive", steps, "scratch", schedule=schedule),)
