"""Conversion of a plan's sections to the settings of the loop, workers and labels."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from alloop.acceptance import AcceptanceSettings, SetLimits
from alloop.config.checks.validate import STAND_INS, validate_tree
from alloop.config.problems import ConfigError, Problem
from alloop.config.sections.data import Sampled
from alloop.config.sections.explore import Explore
from alloop.config.sections.plan import Plan
from alloop.config.sections.training import Asteroid, Standard
from alloop.config.trainer import make_trainer
from alloop.config.yaml_text import Tree
from alloop.core.levels import Level
from alloop.labels.child.labeller import Limits
from alloop.loop.rules import (
    Budget,
    Examining,
    ExploreRules,
    RefineRules,
    Rules,
    SeedRules,
    SplitRules,
    StopRules,
)
from alloop.md.dynamics import DynamicsSettings
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin
from alloop.refine.settings import TestTimeSettings
from alloop.workers.settings import FirstFrames, ScorerSettings, WorkerSettings

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
    return plan.model_copy(
        update={
            "validation": validation,
            "budget": budget,
            "seeds": plan.seeds.model_copy(update=seeds),
            "training": plan.training or default,
            "store": plan.store or f"runs/{plan.name}.zarr",
        }
    )


def build_levels(plan: Plan) -> dict[str, Level]:
    """Return the levels by fidelity; raise InputError for invalid settings."""
    cheap = {} if plan.levels.cheap is None else {"cheap": plan.levels.cheap.build()}
    return {**cheap, "expensive": plan.levels.expensive.build()}


def build_rules(plan: Plan, validated: bool) -> Rules:
    """Return the rules of the loop's decisions; validated: frames are supplied."""
    moves, stop, pick = plan.explore, plan.stop, plan.flag.selection
    sampled = plan.validation if isinstance(plan.validation, Sampled) else None
    target = None if stop.target is None else stop.target * 1e-3  # meV/Å -> eV/Å
    fidelities = ("cheap", "expensive") if plan.levels.cheap else ("expensive",)
    return Rules(
        budget=Budget(
            plan.budget.cheap or 0, plan.budget.expensive, plan.budget.cpu_hours
        ),
        seeding=SeedRules(
            cheap=plan.seeds.cheap or 0,
            expensive=plan.seeds.expensive or 0,
            validation=0 if validated or sampled is None else sampled.frames,
            per_walker=1 if sampled is None else sampled.each,
        ),
        exploring=ExploreRules(
            moves.walkers,
            moves.steps,
            moves.batch,
            moves.piece,
            moves.temperatures,
            moves.timestep,
            moves.protocol,
        ),
        stopping=StopRules(target, stop.patience, stop.improvement, stop.rounds),
        examining=Examining(
            plan.validation.examination,
            plan.validation.examination_spacing,
            _validation_temperatures(plan),
        ),
        every=10 if plan.training is None else plan.training.every,
        control=plan.flag.control,
        heldout=plan.flag.heldout,
        selection="random" if pick.kind == "random" else "flagged",
        selector=pick.selector(fill=plan.flag.fill),
        expensive_selector=pick.selector(fill=True),
        triage=plan.flag.triage,
        staleness=0 if plan.training is None else plan.training.staleness,
        last=1.0 if plan.training is None else plan.training.last,
        split=_split_rules(plan),
        refine=None if plan.refine is None else RefineRules(plan.refine.frames),
        recheck={fidelity: plan.levels.recheck(fidelity) for fidelity in fidelities},
        doubts={fidelity: plan.levels.doubts(fidelity) for fidelity in fidelities},
    )


def _split_rules(plan: Plan) -> SplitRules | None:
    budget = plan.budget
    if budget.split == "fixed":
        return None
    return SplitRules(budget.split_every, budget.split_steps)


def _validation_temperatures(plan: Plan) -> tuple[float, ...]:
    """Return the temperatures of validation frames and examination, K."""
    asked = (
        plan.validation.temperature if isinstance(plan.validation, Sampled) else None
    )
    if asked is None:
        return plan.explore.temperatures
    return asked if isinstance(asked, tuple) else (asked,)


def worker_settings(
    plan: Plan, levels: Mapping[str, Level], molecules: int
) -> WorkerSettings:
    """Return the settings of workers; molecules: number of start structures.

    If a campaign has only one level, it makes the first frames too.
    """
    exploring = build_rules(plan, validated=False).exploring
    cycle = molecules * len(exploring.temperatures)
    return WorkerSettings(
        seed=plan.seed,
        levels={"cheap": levels.get("cheap", levels["expensive"]), **levels},
        dynamics=dynamics_settings(plan.explore),
        beginning=_first_frames(plan),
        make_trainer=partial(make_trainer, plan),
        scoring=scorer_settings(plan),
        limits=Limits(plan.limits.label_time, plan.limits.label_memory),
        isolate=plan.limits.isolate,
        temperatures=tuple(
            exploring.temperature_of(walker, molecules) for walker in range(cycle)
        ),
        compile=compiles_forces(plan.explore),
        acceptance=_acceptance_settings(plan),
        replay=replay_share(plan),
        refine=_test_time_settings(plan),
        device=plan.device,
    )


def child_limits(plan: Plan) -> Limits | None:
    """Return the limits of child processes, None if labels are made without them."""
    own = plan.limits
    return Limits(own.label_time, own.label_memory) if own.isolate else None


def _test_time_settings(plan: Plan) -> TestTimeSettings | None:
    own = plan.refine
    if own is None:
        return None
    return TestTimeSettings(steps=own.steps, worse=own.worse)


def replay_share(plan: Plan) -> float:
    """Return the share of replayed frames in fine-tuning, 0 without."""
    replay = None if plan.training is None else plan.training.replay
    return 0.0 if replay is None else replay.share


def _acceptance_settings(plan: Plan) -> AcceptanceSettings | None:
    checks = plan.acceptance
    if checks is None:
        return None
    return AcceptanceSettings(
        rise=checks.error,
        compression=checks.compression,
        steps=checks.steps,
        walkers=checks.walkers,
        stopped=checks.stopped,
        sets=tuple(
            SetLimits(
                name,
                each.error,
                None if each.most is None else each.most * 1e-3,  # meV/Å -> eV/Å
            )
            for name, each in checks.sets.items()
        ),
    )


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
    return ScorerSettings(
        flag.scorer(), flag.quantile, coverage=flag.coverage, error=flag.error
    )


def dynamics_settings(explore: Explore) -> DynamicsSettings:
    """Return the settings of the walkers' MD."""
    return DynamicsSettings(
        integrator=explore.integrator(),
        temperature=explore.temperatures[0],
        timestep=explore.timestep,
        stride=explore.stride,
        guards=Guards(**explore.guards.model_dump()),
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
    return FirstFrames(
        test=DynamicsSettings(
            Langevin(test.friction),
            timestep=test.timestep,
            barostat=plan.explore.constant_pressure(),
        ),
        temperatures=_validation_temperatures(plan),
        kind=plan.seeds.kind,
        temperature=plan.seeds.temperature,
        sigma=plan.seeds.sigma,
        spacing=test.spacing,
        strain=plan.seeds.strain,
    )
