"""A training as a list of stages: frozen facts, so that a YAML file can list them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from alloop.training.schedule import Schedule

SCHEDULE = Schedule()

Fidelity: TypeAlias = Literal["cheap", "expensive"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One optimisation: on which labels, from where, with which weights, how long.

    start: "scratch" (a new network), "previous" (the stage before), "parent" (the last
    generation's network; scratch where there is none). weights: "bias" weighs cheap
    frames by their disagreement with the last stage that saw expensive labels.
    """

    name: str
    on: Fidelity
    steps: int
    start: Literal["scratch", "previous", "parent"] = "previous"
    weights: Literal["uniform", "bias"] = "uniform"
    schedule: Schedule = SCHEDULE
