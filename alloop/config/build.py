"""Conversion of a plan to the settings of the loop, workers, labels and training."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from alloop.config.checks.validate import STAND_INS, validate_tree
from alloop.config.sections.base import build_record
from alloop.config.sections.data import Sampled
from alloop.config.sections.explore import Explore
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
from alloop.config.yaml_text import ConfigError, Problem, Tree
from alloop.core.atoms import atomic_number
from alloop.core.levels import Fidelity, Level
from alloop.core.roles import Selector, Trainer
from alloop.labels.child.labeller import Limits
from alloop.loop.rules import (
    Budget,
    Examining,
    ExploreRules,
    RefineRules,
    Rules,
    SeedRules,
    SplitRules,
)
from alloop.md.dynamics import DynamicsSettings
from alloop.md.integrate import Langevin
from alloop.models.settings import is_pretrained
from alloop.refine.settings import TestTimeSettings
from alloop.selection import PerMolecule, PerSpecies
from alloop.workers.settings import FirstFrames, ScorerSettings, WorkerSettings

if TYPE_CHECKING:
    from alloop.potentials.repulsion import Zbl
    from alloop.training.stages import Fidelity, Stage, Weights

_SEEDS = {"cheap": 60, "expensive": 10}
_CHEAP = 200  # labels


def resolve_defaults(plan: Plan) -> Plan:
    """Return the plan with every default that depends on other sections filled in."""
    two = plan.levels.cheap is not None
    cheap = plan.budget.cheap if plan.budget.cheap is not None else _CHEAP * two
    budget = plan.budget.model_copy(update={"cheap": cheap})
    limits = {"cheap": cheap, "expensive": budget.expensive}
    seeds = {
        fidelity: min(_SEEDS[fidelity], limit)
        for fidelity, limit in limits.items()
        if getattr(plan.seeds, fidelity) is None
    }
    single = not two or cheap == 0
    every = min(10, budget.expensive)
    default = (
        Standard(kind="standard", every=every)
        if single
        else Asteroid(kind="asteroid", every=every)
    )
    validation = plan.validation
    if isinstance(validation, Sampled) and validation.temperature is None:
        validation = validation.model_copy(
            update={"temperature": plan.explore.temperature}
        )
    if validation.beyond is None:
        shaped = plan.explore.shapes is not None
        beyond = ceil(validation.examination / 3) if shaped else 0
        validation = validation.model_copy(update={"beyond": beyond})
    return plan.model_copy(
        update={
            "validation": validation,
            "budget": budget,
            "seeds": plan.seeds.model_copy(update=seeds),
            "training": plan.training or default,
            "store": plan.store or f"runs/{plan.name}.zarr",
        }
    )


def build_levels(plan: Plan) -> dict[Fidelity, Level]:
    """Return the levels by fidelity; raise InputError for invalid settings."""
    levels: dict[Fidelity, Level] = {"expensive": plan.levels.expensive.build()}
    if plan.levels.cheap is None:
        return levels
    return {"cheap": plan.levels.cheap.build(), **levels}


def build_rules(plan: Plan, validated: bool) -> Rules:
    """Return the rules of the loop's decisions; validated: frames are supplied."""
    pick = plan.flag.selection
    training = plan.training or Standard(kind="standard", last=1.0)
    fixed = plan.budget.split == "fixed"
    fidelities: list[Fidelity] = ["expensive"]
    if plan.levels.cheap:
        fidelities = ["cheap", "expensive"]
    return Rules(
        budget=Budget(
            cheap=plan.budget.cheap or 0,
            expensive=plan.budget.expensive,
            cpu_hours=plan.budget.cpu_hours,
        ),
        seeding=_seed_rules(plan, validated),
        exploring=build_record(
            ExploreRules,
            plan.explore,
            temperatures=plan.explore.temperatures,
            timestep=plan.explore.timestep,
        ),
        stopping=plan.stop.build(),
        examining=build_record(
            Examining,
            plan.validation,
            temperatures=_validation_temperatures(plan),
            beyond=plan.validation.beyond or 0,
        ),
        every=training.every,
        control=plan.flag.control,
        random=plan.flag.random,
        heldout=plan.flag.heldout,
        selection="random" if pick.kind == "random" else "flagged",
        selector=_species_selector(plan, pick.selector(fill=plan.flag.fill)),
        expensive_selector=_species_selector(plan, pick.selector(fill=True)),
        triage=plan.flag.triage,
        staleness=training.staleness,
        last=training.last,
        split=None if fixed else build_record(SplitRules, plan.budget),
        refine=None if plan.refine is None else build_record(RefineRules, plan.refine),
        explorers=plan.explore.explorers,
        recheck={fidelity: plan.levels.recheck(fidelity) for fidelity in fidelities},
        doubts={fidelity: plan.levels.doubts(fidelity) for fidelity in fidelities},
    )


def _seed_rules(plan: Plan, validated: bool) -> SeedRules:
    validation = plan.validation
    sampled = validation if isinstance(validation, Sampled) else Sampled()
    return build_record(
        SeedRules,
        sampled,
        cheap=plan.seeds.cheap or 0,
        expensive=plan.seeds.expensive or 0,
        validation=0 if validated or validation is not sampled else sampled.frames,
    )


def _species_selector(plan: Plan, selector: Selector) -> Selector:
    """Return the selector, with a share for each species where bonds may break."""
    if plan.explore.guards.build().reactive and isinstance(selector, PerMolecule):
        return PerSpecies(selector.selector)
    return selector


def _validation_temperatures(plan: Plan) -> tuple[float, ...]:
    """Return the temperatures of validation frames and examination, K."""
    kelvin = (
        plan.validation.temperature if isinstance(plan.validation, Sampled) else None
    )
    if kelvin is None:
        return plan.explore.temperatures
    return kelvin if isinstance(kelvin, tuple) else (kelvin,)


def worker_settings(plan: Plan, levels: Mapping[Fidelity, Level]) -> WorkerSettings:
    """Return the settings of workers.

    If a campaign has only one level, it makes the first frames too.
    """
    return WorkerSettings(
        seed=plan.seed,
        levels={"cheap": levels.get("cheap", levels["expensive"]), **levels},
        dynamics=dynamics_settings(plan.explore),
        beginning=_first_frames(plan),
        make_trainer=partial(make_trainer, plan),
        scoring=scorer_settings(plan),
        limits=build_record(Limits, plan.limits),
        isolate=plan.limits.isolate,
        compile=compiles_forces(plan.explore),
        acceptance=None if plan.acceptance is None else plan.acceptance.build(),
        replay=replay_share(plan),
        refine=(
            None if plan.refine is None else build_record(TestTimeSettings, plan.refine)
        ),
        device=plan.device,
        exchange=plan.explore.exchange,
        explorers=plan.explore.explorers,
    )


def child_limits(plan: Plan) -> Limits | None:
    """Return the limits of child processes, None if labels are made without them."""
    return build_record(Limits, plan.limits) if plan.limits.isolate else None


def replay_share(plan: Plan) -> float:
    """Return the share of replayed frames in fine-tuning, 0 without."""
    replay = None if plan.training is None else plan.training.replay
    return 0.0 if replay is None else replay.share


def compiles_forces(explore: Explore) -> bool:
    """Return True if force calls run as compiled code.

    This depends on the configuration alone, so that a campaign does not depend on how
    often it was stopped. Compilation costs up to a minute once for a machine and a kind
    of network, and saves some ms a call.
    """
    return explore.steps >= 5000 if explore.compile == "auto" else explore.compile


def scorer_settings(plan: Plan) -> ScorerSettings:
    """Return the settings with which the scorer of a generation is fitted."""
    flag = plan.flag
    return build_record(ScorerSettings, flag, scorer=flag.scorer())


def dynamics_settings(explore: Explore) -> DynamicsSettings:
    """Return the settings of the walkers' MD."""
    return build_record(
        DynamicsSettings,
        explore,
        integrator=explore.integrator(),
        temperature=explore.temperatures[0],
        guards=explore.guards.build(),
        barostat=explore.constant_pressure(),
    )


def md_settings(options: Tree, temperature: float) -> DynamicsSettings:
    """Return the settings of MD without a campaign.

    options: keys of the `explore:` section, which sets their limits. temperature: of
    the thermostat in K, 0 too. Raises ConfigError with every mistake.
    """
    tree = {str(where[0]): x for where, x in STAND_INS.items() if len(where) == 1}
    if temperature != 0.0:
        options = {**options, "temperature": temperature}
    plan, problems = validate_tree({**tree, "explore": options})
    if plan is None or problems:
        flaws = [
            Problem(f"--{x.path.removeprefix('explore.')}", x.text)
            if x.path != "explore"
            else Problem("--kind", x.text)
            for x in problems
        ]
        raise ConfigError("the command line", flaws)
    return replace(dynamics_settings(plan.explore), temperature=temperature)


def _first_frames(plan: Plan) -> FirstFrames:
    test = plan.validation if isinstance(plan.validation, Sampled) else Sampled()
    return build_record(
        FirstFrames,
        plan.seeds,
        test=DynamicsSettings(
            Langevin(test.friction),
            timestep=test.timestep,
            barostat=plan.explore.constant_pressure(),
        ),
        temperatures=_validation_temperatures(plan),
        spacing=test.spacing,
    )


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
    from alloop.training.stages import Adapters
    from alloop.training.trainers.staged_trainer import StagedTrainer, TwoHeadTrainer
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
    if training is not None and training.adapters is not None:
        options["adapters"] = build_record(Adapters, training.adapters)
    if training is not None and training.dipoles:
        options["dipoles"] = True
    if training is not None and training.replay is not None:
        options["own_head"] = training.replay.head == "own"
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
    energies_of = {level: getattr(training.references, level) for level in levels}
    return {
        level: {atomic_number(element): float(e) for element, e in energies.items()}
        for level, energies in energies_of.items()
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
    from alloop.training.stages import (
        FINE_TUNING,
        SCHEDULE,
        Schedule,
        Stage,
        asteroid_stages,
        standard_stages,
    )
    from alloop.training.trainers.staged_trainer import two_head_stages

    tuned = is_pretrained(kind)
    default: Literal["adamw", "muon"] = "adamw" if tuned else "muon"
    schedule = Schedule(
        lr=training.lr or (_GENTLE if tuned else SCHEDULE.lr),
        batch=training.batch,
        energy=training.energy,
        stress=training.stress,
        ema=training.ema,
        compile=training.compile,
        optimiser=training.optimiser or default,
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
        network = plan.potential.network or {}
        return str(network["kind"]), dict(network["settings"])
    settings = plan.potential.model_dump(exclude={"kind", "repulsion"})
    return plan.potential.kind, settings
