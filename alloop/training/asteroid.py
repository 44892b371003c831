"""The usual stage lists: ASTEROID, and the standard training it is compared with.

Bukharin et al., Machine Learning Force Fields with Data Cost Aware Training, ICML 2023.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alloop.training.schedule import Schedule
from alloop.training.staged_trainer import StagedTrainer
from alloop.training.stages import SCHEDULE, Stage, Weights

STEPS = (300, 2700, 1000)  # θ0, pretraining, fine-tuning
FINE_TUNING = 1e-3  # peak learning rate for few labels and a good start


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
    gentle = replace(schedule, lr=fine_tuning)
    teacher = Stage("teacher", "expensive", steps[0], "scratch", schedule=schedule)
    cheap = Stage("pretraining", "cheap", steps[1], "scratch", weights, schedule)
    fine = Stage("fine-tuning", "expensive", steps[2], schedule=gentle)
    if weights == "uniform":
        return replace(cheap, steps=steps[0] + steps[1]), fine
    return teacher, cheap, fine


def standard_stages(
    steps: int = sum(STEPS), schedule: Schedule = SCHEDULE
) -> tuple[Stage]:
    """Return one stage on expensive labels, by default with all of ASTEROID's steps."""
    return (Stage("standard", "expensive", steps, "scratch", schedule=schedule),)


def asteroid_trainer(
    kind: str, settings: Mapping[str, Any], **options: Any
) -> StagedTrainer:
    """Return a trainer with ASTEROID's default stages; options are StagedTrainer's."""
    return StagedTrainer(kind, settings, asteroid_stages(), **options)


def standard_trainer(
    kind: str, settings: Mapping[str, Any], **options: Any
) -> StagedTrainer:
    """Return a trainer on expensive labels alone, with as many steps as ASTEROID.

    options are StagedTrainer's.
    """
    return StagedTrainer(kind, settings, standard_stages(), **options)
