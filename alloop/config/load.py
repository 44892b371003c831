"""A YAML file to a Setup, or to the list of all that is wrong with it."""

from pathlib import Path
from typing import Any, TypeAlias

from alloop.config import build
from alloop.config.checks import agreement, crowding, of_levels, of_store
from alloop.config.gather import gather
from alloop.config.learning import of_references
from alloop.config.merge import collect
from alloop.config.molecules import elements
from alloop.config.plan import Plan
from alloop.config.potentials import Ready
from alloop.config.problems import ConfigError, Problem
from alloop.config.setup import Setup
from alloop.config.text import parse, read
from alloop.config.validate import kinds, validate
from alloop.core.errors import AlloopError, InputError

Model: TypeAlias = tuple[bytes, str]  # a blob and its identity


def load(path: str | Path) -> Setup:
    """The campaign that a YAML file describes.

    Raises ConfigError with every mistake. Creates nothing.
    """
    file = Path(path)
    return loads(read(file), file.parent, str(file))


def loads(text: str, base: str | Path, name: str = "the configuration") -> Setup:
    """The campaign that a YAML text describes; its paths are relative to `base`."""
    tree = collect(parse(text, name), Path(base), name, kinds())
    plan, problems = validate(tree)
    if plan is None:
        raise ConfigError(name, problems)
    broken = {problem.path.split(".")[0] for problem in problems}
    setup, more = _assembled(build.resolved(plan), Path(base), broken)
    if problems or more:
        raise ConfigError(name, [*problems, *more])
    return setup


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration, for editors."""
    found = Plan.model_json_schema()
    found["properties"]["extends"] = {
        "description": "files whose keys stand beneath these",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for level in found["$defs"]["Levels"]["properties"].values():
        mappings = level.pop("anyOf", [{"oneOf": level.pop("oneOf", [])}])
        level["anyOf"] = [{"type": "string"}, *mappings]
    return found


def _assembled(
    plan: Plan, folder: Path, broken: set[str]
) -> tuple[Setup, list[Problem]]:
    levels = build.levels(plan)
    found = gather(plan, folder, levels)
    store = (folder / (plan.store or "")).resolve()
    plan, model, flaws = own_model(plan, folder)
    problems = [*agreement(plan, broken), *found.problems, *flaws, *of_store(store)]
    problems += of_levels(levels, elements(found.start))
    problems += of_references(plan.training, elements(found.start))
    if not {"seeds", "explore", "start"} & broken and not found.problems:
        problems += crowding(plan, found.start)
    setup = Setup(
        plan=plan,
        start=tuple(found.start),
        levels=levels,
        store=store,
        given=() if found.problems else found.given(),
        cache=None if plan.cache is None else (folder / plan.cache).resolve(),
        model=None if model is None else model[0],
        model_id=None if model is None else model[1],
        warnings=tuple(found.warnings),
    )
    return setup, problems


def own_model(plan: Plan, folder: Path) -> tuple[Plan, Model | None, list[Problem]]:
    """The user's model, and the plan that knows what network it is."""
    if not isinstance(plan.potential, Ready):
        return plan, None, []
    try:
        blob, own, identity = _opened(folder / plan.potential.path)
    except AlloopError as error:
        return plan, None, [Problem("potential.path", str(error))]
    potential = plan.potential.model_copy(update={"network": own})
    return plan.model_copy(update={"potential": potential}), (blob, identity), []


def _opened(path: Path) -> tuple[bytes, dict[str, Any], str]:
    """A model file, its network in words, and its identity."""
    from alloop.generation import from_bytes
    from alloop.models.checkpoint import identity, loads
    from alloop.potentials.restore import KINDS, inner

    if not path.is_file():
        raise InputError(f"expected an alloop model file, {path} is not there")
    blob = path.read_bytes()
    checkpoint = loads(blob)
    settings = inner(checkpoint).settings
    if checkpoint.kind in KINDS:
        from_bytes(blob)  # refuses what cannot be used, before labels are paid for
    own = {"kind": checkpoint.kind, "settings": dict(settings.get("network") or {})}
    if "repulsion" in settings:
        own["repulsion"] = settings["repulsion"]
    return blob, own, identity(checkpoint)


def store_path(path: str | Path) -> Path:
    """Where the campaign of a YAML file is kept; looks at nothing else."""
    file = Path(path)
    tree = collect(parse(read(file), str(file)), file.parent, str(file), kinds())
    name = tree.get("store") or f"runs/{tree.get('name')}.zarr"
    return (file.parent / str(name)).resolve()
