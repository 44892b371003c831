"""Conversion of a plan's sections to the settings of the loop, workers and labels."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from alloop.config.checks.validate import STAND_INS, validate_tree
from alloop.config.problems import ConfigError, Problem
from alloop.config.sections.base import build_record
from alloop.config.sections.data import Sampled
from alloop.config.sections.explore import Explore
from alloop.config.sections.plan import Plan
from alloop.config.sections.training import Asteroid, Standard
from alloop.config.trainer import make_trainer
from alloop.config.yaml_text import Tree
from alloop.core.levels import Fidelity, Level
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


def build_levels(plan: Plan) -> dict[Fidelity, Level]:
    """Return the levels by fidelity; raise InputError for invalid settings."""
    levels: dict[Fidelity, Level] = {"expensive": plan.levels.expensive.build()}
    if plan.levels.cheap is None:
        return levels
    return {"cheap": plan.levels.cheap.build(), **levels}


def build_rules(plan: Plan, validated: bool) -> Rules:
    """Return the rules of the loop's decisions; validated: frames are supplied."""
    pick, validation = plan.flag.selection, plan.validation
    sampled = validation if isinstance(validation, Sampled) else Sampled()
    frames = 0 if validated or validation is not sampled else sampled.frames
    training = plan.training or Standard(kind="standard", last=1.0)
    fidelities: list[Fidelity] = ["expensive"]
    if plan.levels.cheap:
        fidelities = ["cheap", "expensive"]
    seeds = {"cheap": plan.seeds.cheap or 0, "expensive": plan.seeds.expensive or 0}
    return Rules(
        budget=Budget(
            cheap=plan.budget.cheap or 0,
            expensive=plan.budget.expensive,
            cpu_hours=plan.budget.cpu_hours,
        ),
        seeding=build_record(SeedRules, sampled, **seeds, validation=frames),
        exploring=build_record(
            ExploreRules,
            plan.explore,
            temperatures=plan.explore.temperatures,
            timestep=plan.explore.timestep,
        ),
        stopping=plan.stop.build(),
        examining=build_record(
            Examining, validation, temperatures=_validation_temperatures(plan)
        ),
        every=training.every,
        control=plan.flag.control,
        heldout=plan.flag.heldout,
        selection="random" if pick.kind == "random" else "flagged",
        selector=pick.selector(fill=plan.flag.fill),
        expensive_selector=pick.selector(fill=True),
        triage=plan.flag.triage,
        staleness=training.staleness,
        last=training.last,
        split=(
            None
            if plan.budget.split == "fixed"
            else build_record(SplitRules, plan.budget)
        ),
        refine=None if plan.refine is None else build_record(RefineRules, plan.refine),
        recheck={fidelity: plan.levels.recheck(fidelity) for fidelity in fidelities},
        doubts={fidelity: plan.levels.doubts(fidelity) for fidelity in fidelities},
    )


def _validation_temperatures(plan: Plan) -> tuple[float, ...]:
    """Return the temperatures of validation frames and examination, K."""
    asked = (
        plan.validation.temperature if isinstance(plan.validation, Sampled) else None
    )
    if asked is None:
        return plan.explore.temperatures
    return asked if isinstance(asked, tuple) else (asked,)


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
    plan, problems = validate_tree({**tree, "explore": options})
    if plan is None or problems:
        flaws = [
            Problem(f"--{x.path.removeprefix('explore.')}", x.text)
            if x.path != "explore"
            else Problem("--kind", x.text)
            for x in problems
        ]
        raise ConfigError("the options", flaws)
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
