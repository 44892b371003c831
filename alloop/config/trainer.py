"""Conversion of checked `training:` and `potential:` sections to a Trainer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from alloop.config.sections.base import build_record
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import NetworkSection, Ready
from alloop.config.sections.training import (
    Asteroid,
    BiasWeighedSection,
    OptimiserSection,
    Stages,
    Standard,
    TwoHeads,
)
from alloop.core.atoms import atomic_number
from alloop.core.roles import Trainer
from alloop.models.settings import is_pretrained

if TYPE_CHECKING:
    from alloop.potentials.repulsion import Zbl
    from alloop.training.stages import Fidelity, Stage, Weights

_GENTLE = 3e-4  # peak learning rate from a universal potential, measured with SO3LR
_WEIGHTS: "Mapping[str, Weights]" = {
    "plain": "bias",
    "scaled": "scaled",
    "none": "uniform",
}


def make_trainer(plan: Plan) -> Trainer:
    """Return the trainer of a plan. Imports torch, if the potential does."""
    kind, settings = network_settings(plan)
    if kind == "pairwise":
        return _pairwise_trainer(plan, settings)
    return _staged_trainer(plan, kind, settings)


def _pairwise_trainer(plan: Plan, settings: Mapping[str, Any]) -> Trainer:
    from alloop.training.bias_weights import Gamma
    from alloop.training.trainers.pairwise import PairwiseTrainer

    basis = {key: settings[key] for key in ("radial", "cutoff") if key in settings}
    if plan.training is not None:
        basis["stress"] = plan.training.stress
    if not isinstance(plan.training, Asteroid):
        return PairwiseTrainer(**basis, pretrain=False)
    gamma = None if plan.training.bias == "none" else Gamma(plan.training.gamma[0])
    return PairwiseTrainer(**basis, gamma=gamma, least=plan.training.least)


def _staged_trainer(plan: Plan, kind: str, settings: dict[str, Any]) -> Trainer:
    from alloop.training.bias_weights import Gamma
    from alloop.training.trainers.staged_trainer import StagedTrainer
    from alloop.training.trainers.two_heads import TwoHeadTrainer
    from alloop.training.trainers.universal import UniversalTrainer

    training = plan.training
    options: dict[str, Any] = {}
    if training is not None:
        options["given"] = _given_references(training)
    if isinstance(training, BiasWeighedSection):
        options["gammas"] = tuple(Gamma(value) for value in training.gamma)
        options["least"] = training.least
        options["validation"] = training.validation
    options |= {"repulsion": _repulsion(plan), "device": plan.device}
    trainer = TwoHeadTrainer if isinstance(training, TwoHeads) else StagedTrainer
    staged = trainer(kind, settings, _training_stages(plan), **options)
    return UniversalTrainer(staged) if is_pretrained(kind) else staged


def _repulsion(plan: Plan) -> "Zbl | None":
    """Return the repulsion that is added to the network, None if there is none.

    Universal potentials have their own; a model from a file keeps what it was trained
    with.
    """
    from alloop.potentials.repulsion import ZBL, repulsion

    match plan.potential:
        case Ready(network=own):
            return repulsion((own or {}).get("repulsion"))
        case NetworkSection(repulsion="zbl"):
            return ZBL
    return None


def _given_references(training: OptimiserSection) -> "dict[Fidelity, dict[int, float]]":
    """Return reference energies (eV) by atomic number, for levels that have some."""
    levels: tuple[Fidelity, ...] = ("cheap", "expensive")
    given = {level: getattr(training.references, level) for level in levels}
    return {
        level: {atomic_number(element): float(e) for element, e in energies.items()}
        for level, energies in given.items()
        if energies != "fitted"
    }


def _training_stages(plan: Plan) -> "tuple[Stage, ...]":
    training = plan.training or Standard(kind="standard")
    stages = _stage_list(training, network_settings(plan)[0])
    if training.start == "scratch" and not isinstance(plan.potential, Ready):
        return stages
    return tuple(
        replace(stage, start="parent") if stage.start == "scratch" else stage
        for stage in stages
    )


def _stage_list(
    training: Asteroid | Standard | Stages | TwoHeads, kind: str
) -> "tuple[Stage, ...]":
    from alloop.training.schedule import Schedule
    from alloop.training.stages import (
        FINE_TUNING,
        SCHEDULE,
        Stage,
        asteroid_stages,
        standard_stages,
    )
    from alloop.training.trainers.two_heads import two_head_stages

    tuned = is_pretrained(kind)
    usual: Literal["adamw", "muon"] = "adamw" if tuned else "muon"
    schedule = Schedule(
        lr=training.lr or (_GENTLE if tuned else SCHEDULE.lr),
        batch=training.batch,
        energy=training.energy,
        stress=training.stress,
        compile=training.compile,
        optimiser=training.optimiser or usual,
    )
    match training:
        case Asteroid():
            steps = (training.teacher, training.pretrain, training.finetune)
            weights = _WEIGHTS[training.bias]
            fine = training.finetune_lr or (_GENTLE if tuned else FINE_TUNING)
            return asteroid_stages(steps, schedule, fine, weights)
        case TwoHeads():
            steps_each = (training.pretrain, training.finetune)
            return two_head_stages(steps_each, schedule, training.finetune_lr)
        case Standard():
            return standard_stages(training.steps, schedule)
        case Stages():
            return tuple(
                build_record(
                    Stage,
                    step,
                    name=step.name,
                    on=step.on,
                    steps=step.steps,
                    schedule=replace(schedule, **step.overrides),
                    temperature=step.temperature or 0.0,
                )
                for step in training.stages
            )


def network_settings(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return kind and settings of the network that is trained."""
    if isinstance(plan.potential, Ready):
        own = plan.potential.network or {}
        return str(own["kind"]), dict(own["settings"])
    settings = plan.potential.model_dump(exclude={"kind", "repulsion"})
    return plan.potential.kind, settings
