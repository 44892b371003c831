"""Who learns: a checked `training:` and `potential:` section as a Trainer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alloop.config.plan import Plan
from alloop.config.potentials import Ready
from alloop.config.training import Asteroid, Standard
from alloop.core.roles import Trainer

if TYPE_CHECKING:
    from alloop.training.stages import Stage


def trainer(plan: Plan) -> Trainer:
    """Who makes a potential of the labels. Imports torch, if the potential does."""
    kind, settings = network(plan)
    if kind == "pairwise":
        return _pairwise(plan, settings)
    return _staged(plan, kind, settings)


def _pairwise(plan: Plan, settings: Mapping[str, Any]) -> Trainer:
    from alloop.training.pairwise import PairwiseTrainer
    from alloop.training.weights import Gamma

    basis = {key: settings[key] for key in ("radial", "cutoff") if key in settings}
    if not isinstance(plan.training, Asteroid):
        return PairwiseTrainer(**basis, pretrain=False)
    gamma, least = Gamma(plan.training.gamma[0]), plan.training.least
    return PairwiseTrainer(**basis, gamma=gamma, least=least)


def _staged(plan: Plan, kind: str, settings: dict[str, Any]) -> Trainer:
    from alloop.training.staged import StagedTrainer
    from alloop.training.weights import Gamma

    training = plan.training
    options: dict[str, Any] = {}
    if isinstance(training, Asteroid):
        options["gammas"] = tuple(Gamma(value) for value in training.gamma)
        options["least"] = training.least
        options["validation"] = training.validation
    return StagedTrainer(kind, settings, _stages(plan), **options)


def _stages(plan: Plan) -> "tuple[Stage, ...]":
    from alloop.training.asteroid import asteroid_stages, standard_stages
    from alloop.training.schedule import Schedule

    training = plan.training or Standard(kind="standard")
    schedule = Schedule(training.lr, training.batch, energy=training.energy)
    stages: tuple[Stage, ...]
    match training:
        case Asteroid():
            steps = (training.teacher, training.pretrain, training.finetune)
            stages = asteroid_stages(steps, schedule, training.finetune_lr)
        case Standard():
            stages = standard_stages(training.steps, schedule)
    if not isinstance(plan.potential, Ready):
        return stages
    return tuple(
        replace(stage, start="parent") if stage.start == "scratch" else stage
        for stage in stages
    )


def network(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Kind and settings of the network that is trained."""
    if isinstance(plan.potential, Ready):
        own = plan.potential.network or {}
        return str(own["kind"]), dict(own["settings"])
    return plan.potential.kind, plan.potential.model_dump(exclude={"kind"})
