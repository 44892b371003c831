"""Checks that the sections of a plan agree, and that this machine can run it.

The checks create nothing, and import no torch in this process.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from re import search
from shutil import which

import numpy as np

from alloop.config.checks.training_checks import (
    energy_problems,
    refine_problems,
    score_problems,
    training_problems,
)
from alloop.config.sections.clusters import BatchSystem, Local
from alloop.config.sections.data import Sampled
from alloop.config.sections.flag import DescriptorFlag
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import Problem
from alloop.core.atoms import hill_formula
from alloop.core.frame import Frame
from alloop.core.label_cost import UNKNOWN_COST
from alloop.core.levels import Fidelity, Level
from alloop.core.text import plural
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.composite import plain_levels
from alloop.labels.levels import check_level
from alloop.labels.named_code import code_folder, path_problems
from alloop.labels.programs import level_cost, outside_code, program_of
from alloop.labels.toy import toy_level
from alloop.md.biases import chosen_variables
from alloop.md.guards import Guards
from alloop.md.shapes import open_bonds
from alloop.scores.error_limits import needed_frames
from alloop.workers.batch_systems import BATCH_SYSTEMS

_HOT = 5000.0  # K
_REACTING = 1000.0  # K
_FUNCTIONS = 300.0  # basis functions of the molecule that costs are compared for
_REVERSED = 3.0  # typical costs of methods, without the basis, are not better known
_ENOUGH = 500.0  # MB, more than a child of any program takes to start


def section_conflicts(plan: Plan, broken: set[str]) -> Iterator[Problem]:
    """Yield conflicts between sections of a resolved plan, except those in `broken`."""
    checks = (
        (_budget_problems, {"budget", "seeds", "training"}),
        (_fidelity_problems, {"budget", "seeds", "levels"}),
        (training_problems, {"training", "levels", "potential"}),
        (
            energy_problems,
            {"levels", "training", "potential", "flag", "refine", "stop"},
        ),
        (score_problems, {"training"}),
        (
            refine_problems,
            {"refine", "training", "levels", "budget", "explore", "flag", "validation"},
        ),
        (_stopping_problems, {"stop", "validation"}),
        (_limit_problems, {"flag", "validation"}),
        (_share_problems, {"explore"}),
        (_uncertainty_problems, {"explore", "flag"}),
        (_exchange_problems, {"explore"}),
        (_beyond_problems, {"validation"}),
        (_reactive_problems, {"explore", "flag"}),
    )
    for check, sections in checks:
        if not sections & broken:
            yield from check(plan)


def too_few_per_molecule(plan: Plan, start: Sequence[Frame]) -> Iterator[Problem]:
    """Yield problems if there are fewer walkers or seed labels than starts."""
    starts = len(start)
    if plan.explore.walkers < starts:
        text = (
            f"expected a walker for each of {starts} starts, got {plan.explore.walkers}"
        )
        yield Problem("explore.walkers", text)
    labels = plan.seeds.expensive or 0
    if labels < starts:
        text = f"expected a label for each of {starts} starts, got {labels}"
        yield Problem("seeds.expensive", text)


def _share_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a problem if nothing is left for the frames of MD."""
    shares = {name: x.share for name, x in plan.explore.explorers.items()}
    if sum(shares.values()) < 1.0:
        return
    *others, last = shares
    before = ", ".join(f"`{name}` with {shares[name]:g}" for name in others)
    text = (
        f"expected a `share` that leaves some labels to MD beside {before}, got "
        f"{shares[last]:g}"
    )
    yield Problem(f"explore.{last}.share", text)


def _uncertainty_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a problem if the surprise that is to drive walkers has no gradient."""
    flag = plan.flag
    if plan.explore.uncertainty is None or (
        isinstance(flag, DescriptorFlag) and flag.descriptors == "model"
    ):
        return
    text = "expected surprise by the model's descriptors, `flag: {kind: leverage}`, got"
    given = "soap" if isinstance(flag, DescriptorFlag) else flag.kind
    yield Problem("explore.uncertainty", f"{text} {given}")


def _reactive_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems if bonds may break and other settings forbid or ignore it."""
    guards = plan.explore.guards.build()
    if not guards.reactive:
        return
    if guards.bond not in (None, Guards().bond):
        text = f"expected no limit of bonds beside `reactive`, got {guards.bond:g}"
        yield Problem("explore.guards.bond", f"{text}; leave one of them out")
    if getattr(plan.flag.selection, "molecules", "equal") != "equal":
        text = "expected `equal` shares, of species too, with `guards: reactive`"
        yield Problem("flag.selection.molecules", f"{text}; leave it out")


def reactive_problems(plan: Plan, start: Sequence[Frame]) -> Iterator[Problem]:
    """Yield a problem if bonds may break in a cell, where species are not told."""
    cells = [hill_formula(frame) for frame in start if any(frame.pbc)]
    if plan.explore.guards.build().reactive and cells:
        text = f"expected molecules without a cell, got {cells[0]} in one"
        yield Problem("explore.guards.reactive", f"{text}; set `bond: null` instead")


def _reactive_warnings(plan: Plan, levels: Mapping[Fidelity, Level]) -> Iterator[str]:
    """Yield what makes little sense where bonds may break."""
    if not plan.explore.guards.build().reactive:
        return
    for name, level in levels.items():
        methods = [str(x.settings.get("method")) for x in plain_levels(level)]
        if any(x.lower().startswith(("mp2", "ccsd")) for x in methods):
            yield (
                f"levels.{name}: {level.title} describes few broken bonds; its labels "
                "there are doubted, and count against the budget"
            )
    if max(plan.explore.temperatures) < _REACTING and not plan.explore.explorers:
        yield (
            f"explore.temperature: MD below {_REACTING:g} K breaks few bonds; raise "
            "it, or let `shapes`, `paths` or `metadynamics` propose frames"
        )


def _beyond_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a problem if there are frames beyond an examination that there is not."""
    validation = plan.validation
    if validation.beyond and not validation.examination:
        text = (
            f"expected `validation.examination` frames beside, got {validation.beyond}"
        )
        yield Problem("validation.beyond", f"{text} and none; leave it out")


def beyond_problems(plan: Plan, start: Sequence[Frame]) -> Iterator[Problem]:
    """Yield a problem if frames beyond MD are asked for that no start can have.

    Those by default are left out without a word.
    """
    default = ceil(plan.validation.examination / 3)
    asked = plan.validation.beyond or 0
    if asked and start and not any(open_bonds(frame) for frame in start):
        if plan.explore.shapes is not None and asked == default:
            return
        text = "expected a start without a cell and with a bond outside rings, got none"
        yield Problem("validation.beyond", f"{text}; leave it out")


def _exchange_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a problem if walkers that are to exchange temperatures have none to."""
    explore = plan.explore
    if not explore.exchange:
        return
    if len(set(explore.temperatures)) < 2:
        text = "expected several temperatures to exchange, got one; leave it out"
        yield Problem("explore.exchange", text)
    elif explore.piece >= explore.steps:
        text = (
            "expected pieces of MD shorter than a round, after which temperatures are "
            f"exchanged: fewer than {explore.steps} steps, got {explore.piece}"
        )
        yield Problem("explore.piece", text)


def pressure_problems(
    plan: Plan, levels: Mapping[Fidelity, Level], start: Sequence[Frame]
) -> Iterator[Problem]:
    """Yield problems if there is a pressure and starts or levels know no cells."""
    if plan.explore.constant_pressure() is None:
        return
    path = "explore.pressure"
    strange = [hill_formula(frame) for frame in start if not all(frame.pbc)]
    if strange:
        text = f"expected cells that repeat in all directions, got {strange[0]}"
        yield Problem(path, f"{text} without; leave it out")
    first = levels.get("cheap", levels["expensive"])
    if (
        isinstance(plan.validation, Sampled)
        and program_of(first).stress(first.settings) is False
    ):
        text = f"the first frames move at {first.title}, which gives no stress of cells"
        yield Problem(path, f"{text}; leave it out, or choose another level")


def variable_problems(plan: Plan, start: Sequence[Frame]) -> Iterator[Problem]:
    """Yield a problem if metadynamics finds nothing to bias in any start."""
    if plan.explore.metadynamics is None:
        return
    settings = plan.explore.metadynamics.build()
    if settings.variables == "shape":
        return
    last = max((x for named in settings.named for x in named.atoms), default=0)
    smallest = min((len(frame) for frame in start), default=last + 1)
    if last >= smallest:
        text = f"expected atoms of every molecule, numbered 0 to {smallest - 1}"
        yield Problem("explore.metadynamics.variables", f"{text}, got {last}")
    if start and not any(chosen_variables(frame, settings) for frame in start):
        words = {
            "torsions": "a bond that turns",
            "transfers": f"a hydrogen within {settings.reach:g} Å of another acceptor",
            "both": "a bond that turns or a hydrogen that may change its partner",
        }
        text = f"expected a start without a cell and with {words[settings.variables]}"
        yield Problem("explore.metadynamics", f"{text}, got none; leave it out")


def strain_problems(plan: Plan, start: Sequence[Frame]) -> Iterator[Problem]:
    """Yield a problem if first frames are to be strained and a start has no cell."""
    strange = [hill_formula(frame) for frame in start if not all(frame.pbc)]
    if plan.seeds.strain and strange:
        text = f"expected cells that repeat in all directions, got {strange[0]} without"
        yield Problem("seeds.strain", f"{text}; leave it out")


def level_problems(
    levels: Mapping[Fidelity, Level],
    elements: Sequence[str],
    limits: Limits | None = None,
) -> list[Problem]:
    """Return problems of levels: impossible for these elements, or equal to each other.

    limits: of the child processes that try them. Code that a level names is neither
    imported nor called.
    """
    problems = [
        Problem(f"levels.{name}", text)
        for name, text in _impossible_levels(levels, elements, limits)
    ]
    if len(levels) == 2 and len({level.id for level in levels.values()}) == 1:
        text = f"both are {levels['cheap'].title}; leave `cheap` out, or change one"
        problems.append(Problem("levels", text))
    return problems


def plan_warnings(plan: Plan, levels: Mapping[Fidelity, Level]) -> Iterator[str]:
    """Yield what is allowed and looks wrong: heat, levels in reverse, no scheduler."""
    sections = {
        "seeds": plan.seeds,
        "explore": plan.explore,
        "validation": plan.validation,
    }
    for name, section in sections.items():
        hottest = np.max(getattr(section, "temperature", None) or 0.0)
        if hottest > _HOT:
            text = f"{hottest:g} K breaks most bonds; {_HOT:g} K or less is usual"
            yield f"{name}.temperature: {text}"
    yield from _reactive_warnings(plan, levels)
    if len(levels) == 2:
        yield from _reverse_levels(levels["cheap"], levels["expensive"])
    system = BATCH_SYSTEMS.get(plan.cluster.kind)
    if system is not None and which(system.program) is None:
        yield (
            f"cluster: `{system.program}` is not on this machine; start the campaign "
            "where jobs are submitted"
        )


def _reverse_levels(cheap: Level, expensive: Level) -> Iterator[str]:
    """Yield a warning if the cheap level's method, or its basis, usually costs more."""
    costs = [program_of(level).cost(level.settings) for level in (cheap, expensive)]
    if UNKNOWN_COST in costs:
        return
    low, high = (
        level_cost(level).time.value(_FUNCTIONS, False) for level in (cheap, expensive)
    )
    larger = (
        cheap.settings.get("method") == expensive.settings.get("method")
        and _basis_quality(cheap) > _basis_quality(expensive) > 0
    )
    if larger or high < low / _REVERSED:
        yield (
            f"levels: {expensive.title} usually costs less than {cheap.title}, the "
            "cheap level; exchange them, or leave `cheap` out"
        )


def _basis_quality(level: Level) -> int:
    """Return the zeta of a level's basis by its name; 0 without a basis."""
    name = str(level.settings.get("basis", "")).lower()
    signs = ((5, "5z"), (4, "qz"), (3, "tz|6-?311"), (1, "sto-?3g|minao"))
    return next((x for x, sign in signs if search(sign, name)), 2 if name else 0)


def store_problems(path: Path) -> list[Problem]:
    """Return the reasons why the store cannot be written there."""
    if not str(path).isprintable() or "\\" in str(path):  # batch systems garble these
        text = "expected a path without control characters and backslashes, got "
        return [Problem("store", f"{text}{str(path)!r}")]
    if path.is_file():
        return [Problem("store", f"expected a folder for the store, {path} is a file")]
    near = next(folder for folder in (path, *path.parents) if folder.exists())
    if not near.is_dir():
        return [Problem("store", f"{near} is a file, {path} cannot lie in it")]
    try:
        with tempfile.TemporaryFile(dir=near):
            return []
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{path} cannot be written ({reason} in {near}); choose another place"
        return [Problem("store", text)]


def _impossible_levels(
    levels: Mapping[Fidelity, Level], elements: Sequence[str], limits: Limits | None
) -> Iterator[tuple[str, str]]:
    real = {}
    for name, level in levels.items():
        if code := outside_code(level):
            yield from ((name, x) for x in path_problems(code, code_folder(level)))
        elif program_of(level).problems:
            real[name] = level
    if not real and limits is not None and limits.memory_mb < _ENOUGH:
        real = {name: toy_level() for name in levels}  # a child that only starts
    yield from tried_level_problems(real, elements, limits)


def tried_level_problems(
    levels: Mapping[Fidelity, Level],
    elements: Sequence[str],
    limits: Limits | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield names of levels and what cannot work with them, tried in a child process.

    The code that a level names is imported there.
    """
    if not levels:
        return
    with IsolatedLabeller(next(iter(levels.values())), limits) as child:
        for name, level in levels.items():
            for text in check_level(level, elements, within=child):
                yield name, text


def _budget_problems(plan: Plan) -> Iterator[Problem]:
    seeds, budget = plan.seeds, plan.budget
    for fidelity in ("cheap", "expensive"):
        first, limit = getattr(seeds, fidelity) or 0, getattr(budget, fidelity) or 0
        if first > limit:
            text = f"expected at most `budget.{fidelity}`, {limit}, got {first}"
            yield Problem(f"seeds.{fidelity}", text)
    if budget.split == "measured" and not budget.cheap:
        text = "expected two levels to split the budget between, there are no cheap "
        yield Problem("budget.split", f"{text}labels; leave it out")
    every = 0 if plan.training is None else plan.training.every
    if every > budget.expensive:
        text = f"expected at most `budget.expensive`, {budget.expensive}, got {every}"
        yield Problem("training.every", text)


def _fidelity_problems(plan: Plan) -> Iterator[Problem]:
    if plan.levels.cheap is not None:
        return
    missing = "`levels.cheap` is missing; add it"
    if plan.budget.cheap:
        yield Problem("budget.cheap", f"{missing}, or set this to 0")
    if plan.seeds.cheap:
        yield Problem("seeds.cheap", f"{missing}, or set this to 0")


def _stopping_problems(plan: Plan) -> Iterator[Problem]:
    if not isinstance(plan.validation, Sampled) or plan.validation.frames > 0:
        return
    for key in ("target", "patience"):
        if getattr(plan.stop, key) is not None:
            text = (
                "expected validation frames to measure an error on, "
                "`validation.frames` is 0"
            )
            yield Problem(f"stop.{key}", text)


def _limit_problems(plan: Plan) -> Iterator[Problem]:
    if plan.flag.error is None or not isinstance(plan.validation, Sampled):
        return
    needed = needed_frames(plan.flag.coverage)
    if plan.validation.frames < needed:
        text = (
            f"needs at least {needed} `validation.frames` at coverage "
            f"{plan.flag.coverage:g}, got {plan.validation.frames}"
        )
        yield Problem("flag.error", text)


_COUNT = "import torch; print(torch.cuda.device_count())"
_PATIENCE = 120.0  # s: importing torch from a slow disk


def device_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems with `device`, and with the cards that `cluster` has for it.

    This machine is asked only if its own processes do the work.
    """
    cluster, needs_cuda = plan.cluster, plan.device == "cuda"
    if isinstance(cluster, BatchSystem):
        if needs_cuda and not (cluster.learning or cluster.labels).gpus:
            text = "the jobs for training and MD have no card; set their `gpus: 1`"
            yield Problem("device", text)
        return
    needed = cluster.gpus if isinstance(cluster, Local) else 0
    if needed and plan.device == "cpu":
        text = "cards are of no use with `device: cpu`; set `device: cuda`, or leave it"
        yield Problem("cluster.gpus", f"{text} out")
        return
    if cluster.kind == "address" or not (needs_cuda or needed):
        return
    count = card_count()
    if not count:
        text = "expected a CUDA device, torch sees none on this machine; set `cpu`, or"
        yield Problem("device", f"{text} install a torch that is built for it")
    elif needed > count:
        text = f"expected at most {plural(count, 'card')}, which this machine has"
        yield Problem("cluster.gpus", f"{text}, got {needed}")


@cache
def card_count() -> int:
    """Return the number of CUDA devices that torch sees on this machine."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _COUNT],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
        return int(answer.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return 0
