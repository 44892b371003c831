"""The arms of the benchmark: stages with their shares of the steps, as data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any

from alloop.training.bias_weights import Gamma
from alloop.training.schedule import Schedule
from alloop.training.stages import Stage

FULL, LESS = 250, 200  # expensive labels of standard training, and with cheap ones
TEMPERATURE = 500.0  # K, of MD17's trajectories
_NOISE = 0.02  # Å: without any, a thousand frames are learned by heart
_THIRD = 3  # what a step of score matching costs in steps of forces


@dataclass(frozen=True, slots=True)
class Arm:
    """Stages whose `steps` are shares of the row's; expensive labels seen; γ in
    spreads of the bias, several are tried; delta: cheap forces are added at the end;
    gentler: the factor on the steps of stages that go on.
    """

    stages: tuple[Stage, ...]
    expensive: int = LESS
    gammas: tuple[float, ...] = (2.0,)
    delta: bool = False
    gentler: float = 1.0

    @property
    def weighed(self) -> tuple[Gamma, ...]:
        return tuple(Gamma(value) for value in self.gammas)


_TEACHER = Stage("teacher", "expensive", 75, "scratch")
_PRE = Stage("pretraining", "cheap", 675, "scratch", "bias")
_FINE = Stage("fine-tuning", "expensive", 250)
_PLAIN = replace(_PRE, weights="uniform")
_CHEAP = replace(_PLAIN, steps=550)

ARMS: Mapping[str, Arm] = {
    "standard": Arm((Stage("standard", "expensive", 1000, "scratch"),), FULL),
    "no-ft": Arm((_TEACHER, replace(_PRE, steps=925))),
    "no-bat": Arm((replace(_PLAIN, steps=750), _FINE)),
    "asteroid": Arm((_TEACHER, _PRE, _FINE)),
    "gammas": Arm((_TEACHER, _PRE, _FINE), gammas=(0.5, 1.0, 2.0, 4.0)),
    "scaled-bias": Arm((_TEACHER, replace(_PRE, weights="scaled"), _FINE)),
    "scaled-labels": Arm((_TEACHER, replace(_PRE, labels="scaled"), _FINE)),
    "corrected": Arm(
        (
            _CHEAP,
            replace(_FINE, steps=150),
            replace(_FINE, name="both", on="both", labels="corrected", steps=300),
        )
    ),
    "difference": Arm(
        (
            _CHEAP,
            Stage("difference", "expensive", 150, "scratch", labels="difference"),
            replace(_FINE, name="both", on="both", labels="corrected", steps=300),
        )
    ),
    "score": Arm(
        (
            replace(
                _PLAIN, steps=300, loss="score", temperature=TEMPERATURE, noise=_NOISE
            ),
            replace(_FINE, steps=700),
        ),
        gentler=6.25,  # forces from where frames lie are far off: whole steps
    ),
    "brief": Arm(
        (replace(_PLAIN, steps=920), replace(_FINE, steps=80)),
        gentler=0.5,
    ),
    "delta": Arm((Stage("delta", "expensive", 1000, "scratch"),), delta=True),
}


# What standard training is tried with, as its rivals were with peak steps: the way that
# errs least on the validation frames stands for it. Peak step, weight decay.
GRID = tuple(product((2.5e-3, 5e-3, 1.25e-3), (0.0, 0.1)))

# Steps of a row in batches of five: what five minutes of one core gave. In other
# batches as many frames are seen.
STEPS = {"ethanol": 30_000, "benzene": 22_000, "aspirin": 12_000, "h2co": 30_000}


def usual_steps(molecule: str, batch: int) -> int:
    """Return the steps of a row where nothing else was asked for."""
    return 5 * STEPS[molecule] // batch


def usual_labels(arm: str) -> int:
    """Expensive labels that an arm sees where nothing else was asked for."""
    return FULL if arm == "standard" else LESS


def equipped(arm: Arm, schedule: Schedule, fine: float) -> Arm:
    """The arm with this schedule; `fine` is the peak step of stages that go on."""
    gentle = replace(schedule, lr=fine * arm.gentler)
    stages = tuple(
        replace(stage, schedule=gentle if stage.start == "previous" else schedule)
        for stage in arm.stages
    )
    return replace(arm, stages=stages)


def without_cheap_energies(arm: Arm) -> Arm:
    """Return the arm whose stages learn no energies where cheap labels are among
    theirs.
    """
    stages = tuple(
        stage
        if stage.on == "expensive"
        else replace(stage, schedule=replace(stage.schedule, energy=0.0))
        for stage in arm.stages
    )
    return replace(arm, stages=stages)


def sized(arm: Arm, steps: int, evaluations: int = 8) -> Arm:
    """The arm with its shares turned into steps, all of them together `steps`; what
    several γ repeat is counted as often.
    """
    counts = times(arm)
    whole = sum(n * stage.steps for n, stage in zip(counts, arm.stages, strict=True))
    stages = []
    for stage in arm.stages:
        cost = _THIRD if stage.loss == "score" else 1
        own = max(1, round(stage.steps / whole * steps / cost))
        every = max(1, own // evaluations)
        schedule = replace(stage.schedule, every=every)
        stages.append(replace(stage, steps=own, schedule=schedule))
    return replace(arm, stages=tuple(stages))


def times(arm: Arm) -> list[int]:
    """How often each stage runs: those from the first weighed one on, once a γ."""
    counts, many = list[int](), 1
    for stage in arm.stages:
        many = len(arm.gammas) if stage.weights != "uniform" else many
        counts.append(many)
    return counts


def digest(*facts: object) -> str:
    """Eight digits of what a row is made of: other facts, another row."""
    text = repr([_brief(fact) for fact in facts])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _brief(fact: Any) -> object:
    """A fact without what is as usual, so that a new option renames no old row."""
    if isinstance(fact, tuple):
        return [_brief(item) for item in fact]
    if not is_dataclass(fact):
        return fact
    own = {field: getattr(fact, field.name) for field in fields(fact)}
    return {f.name: _brief(x) for f, x in own.items() if x != f.default}
