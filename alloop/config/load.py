"""Conversion of YAML to a Setup or a level, or to the list of all its mistakes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from alloop.config import build
from alloop.config.checks.plan_checks import (
    beyond_problems,
    device_problems,
    level_problems,
    plan_warnings,
    pressure_problems,
    reactive_problems,
    section_conflicts,
    store_problems,
    strain_problems,
    too_few_per_molecule,
    variable_problems,
)
from alloop.config.checks.training_checks import coverage_problems, reference_problems
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.molecules import element_symbols
from alloop.config.sections.base import build_record
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import Ready
from alloop.config.setup import Setup
from alloop.config.starting_data import (
    StartingData,
    read_starting_data,
    read_supplied_sets,
)
from alloop.config.yaml_text import (
    ConfigError,
    Problem,
    collect_fragments,
    parse_yaml,
    place_level,
    read_yaml_text,
)
from alloop.core.errors import AlloopError, InputError
from alloop.core.levels import Fidelity, Level
from alloop.models.settings import NETWORKS, ConvertedSettings
from alloop.models.universal.converted import (
    identity_of,
    licence_text,
    read_converted,
)

_LEVEL = "levels.expensive"
Model: TypeAlias = tuple[bytes, str]  # the bytes of a model and its id


def load_campaign(path: str | Path) -> Setup:
    """Load the campaign that a YAML file describes.

    Raises ConfigError with every mistake. Creates nothing.
    """
    file = Path(path)
    return parse_campaign(read_yaml_text(file), file.parent, str(file))


def parse_campaign(
    text: str, base: str | Path, name: str = "the configuration"
) -> Setup:
    """Parse the campaign in a YAML text; its paths are relative to `base`."""
    tree = collect_fragments(parse_yaml(text, name), Path(base), name, known_kinds())
    plan, problems = validate_tree(tree)
    if plan is None:
        raise ConfigError(name, problems)
    broken = {problem.path.split(".")[0] for problem in problems}
    setup, more = _assemble_setup(build.resolve_defaults(plan), Path(base), broken)
    if problems or more:
        raise ConfigError(name, [*problems, *more])
    return setup


def parse_level(text: str) -> Level:
    """Return the level for a short name, the path of a YAML file or a mapping.

    `hf/sto-3g`, `gfn2-xtb`, `configs/levels/emt.yaml`, `{kind: ase, calculator: ...}`;
    paths are relative to the working folder. Raises InputError, with the nearest
    spelling if there is one. Runs no program: `alloop.labels.levels.check_level` tests
    whether the level works on this machine.
    """
    word = text.strip()
    level: Any = word
    if word.startswith("{"):
        level = place_level(parse_yaml(word, "the level"), Path())
    frame = {"name": "level", "start": [{"molecule": "H2"}]}
    plan, problems = validate_tree({**frame, "levels": {"expensive": level}})
    if plan is None or problems:
        mistakes = [
            f"{problem.path.removeprefix(_LEVEL).lstrip('.')}: {problem.text}"
            for problem in problems
        ]
        raise InputError("; ".join(x.removeprefix(": ") for x in mistakes))
    return plan.levels.expensive.build()


def campaign_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, for editors."""
    schema = Plan.model_json_schema()
    schema["properties"]["extends"] = {
        "description": "files whose keys stand beneath these",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for level in schema["$defs"]["Levels"]["properties"].values():
        mappings = level.pop("anyOf", [{"oneOf": level.pop("oneOf", [])}])
        level["anyOf"] = [{"type": "string"}, *mappings]
    return schema


def _assemble_setup(
    plan: Plan, folder: Path, broken: set[str]
) -> tuple[Setup, list[Problem]]:
    levels = build.build_levels(plan)
    data = read_starting_data(plan, folder, levels)
    store = (folder / (plan.store or "")).resolve()
    plan, model, flaws = own_model(plan, folder)
    supplied = read_supplied_sets(
        plan, folder, data, None if model is None else model[0]
    )
    problems = [
        *section_conflicts(plan, broken),
        *([] if {"device", "cluster"} & broken else device_problems(plan)),
        *data.problems,
        *supplied.problems,
        *flaws,
        *store_problems(store),
        *_frame_problems(plan, levels, data, broken),
    ]
    setup = Setup(
        plan=plan,
        start=tuple(data.start),
        conformers={k: x for k, x in data.conformers.items() if x},
        levels=levels,
        store=store,
        given=() if data.problems else data.given(),
        cache=None if plan.cache is None else (folder / plan.cache).resolve(),
        model=None if model is None else model[0],
        model_id=None if model is None else model[1],
        warnings=(
            *data.warnings,
            *supplied.warnings,
            *plan_warnings(plan, levels),
        ),
        sets=supplied.sets,
        replay=supplied.replay,
        is_checked=True,
    )
    return setup, problems


def _frame_problems(
    plan: Plan, levels: Mapping[Fidelity, Level], data: StartingData, broken: set[str]
) -> Iterator[Problem]:
    """Yield what the plan says that does not suit the frames to start from."""
    elements = element_symbols(data.start)
    yield from level_problems(levels, elements, build.child_limits(plan))
    yield from reference_problems(plan.training, elements)
    yield from coverage_problems(plan, data.start)
    if not {"seeds", "explore", "start"} & broken and not data.problems:
        yield from too_few_per_molecule(plan, data.start)
        yield from pressure_problems(plan, levels, data.start)
        yield from strain_problems(plan, data.start)
        yield from beyond_problems(plan, data.start)
        yield from reactive_problems(plan, data.start)
        yield from variable_problems(plan, data.start)


def own_model(plan: Plan, folder: Path) -> tuple[Plan, Model | None, list[Problem]]:
    """Return the plan with the user's model, the model, and problems with it.

    In the returned plan, `potential.network` describes the network of the model.
    """
    record = NETWORKS.get(plan.potential.kind)
    if record is not None and issubclass(record, ConvertedSettings):
        return _with_weights(record, plan, folder)
    if not isinstance(plan.potential, Ready):
        return plan, None, []
    try:
        blob, network, identity = _open_model(folder / plan.potential.path)
    except AlloopError as error:
        return plan, None, [Problem("potential.path", str(error))]
    potential = plan.potential.model_copy(update={"network": network})
    return plan.model_copy(update={"potential": potential}), (blob, identity), []


def _with_weights(
    kind: type[ConvertedSettings], plan: Plan, folder: Path
) -> tuple[Plan, None, list[Problem]]:
    """Return the plan with the whole path and the content of converted weights."""
    potential: Any = plan.potential
    path = folder / potential.path if potential.path else ""
    try:
        record = replace(build_record(kind, potential), path=str(path))
        record.weights  # noqa: B018 - raises for a wrong file, head or content
        update = {
            "path": str(Path(path).resolve()),
            "identity": identity_of(path),
            "licence": licence_text({"model": read_converted(path).settings}) or "",
        }
    except AlloopError as error:
        key = "head" if "head:" in str(error) else "path"
        return plan, None, [Problem(f"potential.{key}", str(error))]
    filled = potential.model_copy(update=update)
    return plan.model_copy(update={"potential": filled}), None, []


def _open_model(path: Path) -> tuple[bytes, dict[str, Any], str]:
    """Return the bytes of a model file, a description of its network, and its id."""
    from alloop.generation import potential_from_bytes
    from alloop.models.checkpoint import checkpoint_from_bytes, content_id
    from alloop.potentials.restore import KINDS, inner_checkpoint

    if not path.is_file():
        raise InputError(
            f"expected an alloop model file, {path} is not there; give its path"
        )
    blob = path.read_bytes()
    checkpoint = checkpoint_from_bytes(blob)
    settings = inner_checkpoint(checkpoint).settings
    if checkpoint.kind in KINDS:
        potential_from_bytes(blob)  # refuses unusable models before any label is made
    network = {"kind": checkpoint.kind, "settings": dict(settings.get("network") or {})}
    if "repulsion" in settings:
        network["repulsion"] = settings["repulsion"]
    return blob, network, content_id(checkpoint)


def store_path(path: str | Path) -> Path:
    """Return the path of the store of a YAML file's campaign; checks nothing else."""
    file = Path(path)
    tree = collect_fragments(
        parse_yaml(read_yaml_text(file), str(file)),
        file.parent,
        str(file),
        known_kinds(),
    )
    name = tree.get("store") or f"runs/{tree.get('name')}.zarr"
    return (file.parent / str(name)).resolve()
