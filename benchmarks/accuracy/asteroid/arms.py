"""The arms of the benchmark: stages with their shares of the steps, as data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any

from alloop.core.errors import InputError
from alloop.training.bias_weights import Gamma
from alloop.training.stages import Schedule, Stage

FULL, LESS = 250, 200  # expensive labels of standard training, and with cheap ones
TEMPERATURE = 500.0  # K, of MD17's trajectories
_NOISE = 0.02  # Å: without any, a thousand frames are learned by heart
_SCORE_COST = 3  # what a step of score matching costs in steps of forces


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm of the comparison.

    stages: with shares of the row's steps as `steps`; expensive: expensive labels seen;
    gammas: γ in spreads of the bias, several are tried; delta: cheap forces are added
    at the end; gentler: the factor on the steps of stages that go on.
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


def default_steps(molecule: str, batch: int) -> int:
    """Return the steps of a row by default; the fewest for other molecules."""
    return 5 * STEPS.get(molecule, min(STEPS.values())) // batch


def default_labels(arm: str) -> int:
    """Return the expensive labels that an arm sees by default."""
    return FULL if arm == "standard" else LESS


def with_schedule(arm: Arm, schedule: Schedule, fine: float) -> Arm:
    """Return the arm with this schedule; `fine`: peak step of stages that go on."""
    gentle = replace(schedule, lr=fine * arm.gentler)
    stages = tuple(
        replace(stage, schedule=gentle if stage.start == "previous" else schedule)
        for stage in arm.stages
    )
    return replace(arm, stages=stages)


def with_changes(arm: Arm, changes: Mapping[str, Mapping[str, Any]]) -> Arm:
    """Return the arm with other steps or schedules of stages, by name.

    A change names fields of `Schedule`, or `steps`, a share as in `ARMS`. Raises
    InputError for a stage or a field that there is not.
    """
    names = {field.name for field in fields(Schedule)} | {"steps"}
    stages = {stage.name: stage for stage in arm.stages}
    for name, change in changes.items():
        if name not in stages or not set(change) <= names:
            raise InputError(
                f"expected changes of {', '.join(sorted(names))} of the stages "
                f"{', '.join(stages)}, got {dict(change)} of {name}"
            )
        stage, facts = stages[name], dict(change)
        stages[name] = replace(
            stage,
            steps=facts.pop("steps", stage.steps),
            schedule=replace(stage.schedule, **facts),
        )
    return replace(arm, stages=tuple(stages.values()))


def without_cheap_energies(arm: Arm) -> Arm:
    """Return the arm without losses of energies where cheap labels are learned."""
    stages = tuple(
        stage
        if stage.on == "expensive"
        else replace(stage, schedule=replace(stage.schedule, energy=0.0))
        for stage in arm.stages
    )
    return replace(arm, stages=stages)


def with_steps(arm: Arm, steps: int, evaluations: int = 8) -> Arm:
    """Return the arm with its shares turned into steps, `steps` of all stages together.

    Stages that several γ repeat are counted as often.
    """
    counts = stage_runs(arm)
    whole = sum(n * stage.steps for n, stage in zip(counts, arm.stages, strict=True))
    stages = []
    for stage in arm.stages:
        cost = _SCORE_COST if stage.loss == "score" else 1
        stage_steps = max(1, round(stage.steps / whole * steps / cost))
        every = max(1, stage_steps // evaluations)
        schedule = replace(stage.schedule, every=every)
        stages.append(replace(stage, steps=stage_steps, schedule=schedule))
    return replace(arm, stages=tuple(stages))


def stage_runs(arm: Arm) -> list[int]:
    """Return the runs of each stage: those from the first weighed one on, once a γ."""
    counts, many = list[int](), 1
    for stage in arm.stages:
        many = len(arm.gammas) if stage.weights != "uniform" else many
        counts.append(many)
    return counts


def digest(*facts: object) -> str:
    """Return eight digits of what a row is made of, without what is as usual."""
    text = repr([_drop_defaults(fact) for fact in facts])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _drop_defaults(fact: Any) -> object:
    """Return a fact without defaults, so that a new option renames no old row."""
    if isinstance(fact, tuple):
        return [_drop_defaults(item) for item in fact]
    if not is_dataclass(fact):
        return fact
    values = {field: getattr(fact, field.name) for field in fields(fact)}
    return {f.name: _drop_defaults(x) for f, x in values.items() if x != f.default}
