"""The configuration of a training without a campaign, which needs no levels of theory.

    start: [{labels: pbe.xyz, level: expensive, energy_unit: eV, length_unit: angstrom}]
    test: {file: test.xyz, energy_unit: eV, length_unit: angstrom}
    potential: {kind: tensor-painn}
    training: {kind: asteroid, validation: 0.1}
    device: cpu
    seed: 0

The file of a campaign works too: of its `start` only labels are used, and its levels
are ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.config.build import resolve_defaults
from alloop.config.checks.device_checks import device_problems
from alloop.config.checks.training_checks import training_problems
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.load import own_model
from alloop.config.merge import collect_fragments
from alloop.config.problems import ConfigError, Problem
from alloop.config.sections.clusters import Local
from alloop.config.sections.data import Labels, Store
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import Tree, parse_yaml

_STAND_IN = {"kind": "toy"}  # for levels that make no labels
_SUFFIXES = (".yaml", ".yml")


def training_plan(said: Tree, name: str = "the training") -> tuple[Plan, bytes | None]:
    """Return the plan of a training, and the bytes of the model to continue, if any.

    said: sections as in the file above, and `extends`; paths are relative to the
    working folder. Raises ConfigError with every mistake.
    """
    tree = collect_fragments(said, Path(), name, known_kinds())
    start = _label_items(tree.get("start"), name)
    levels = {"expensive": _STAND_IN}
    if any(item.get("level") != "expensive" for item in start):
        levels["cheap"] = _STAND_IN
    plan, problems = validate_tree(
        {"name": "training", **tree, "levels": levels, "start": start}
    )
    if plan is None or problems:
        raise ConfigError(name, problems)
    plan, model, flaws = own_model(resolve_defaults(plan), Path())
    plan = plan.model_copy(update={"cluster": Local()})
    if flaws := [*flaws, *training_problems(plan), *device_problems(plan)]:
        raise ConfigError(name, flaws)
    return plan, None if model is None else model[0]


def parse_section(key: str, text: str) -> Tree:
    """Return a section given as a word, a mapping in YAML or a YAML file.

    `painn`, `{kind: painn, channels: 32}`, `configs/potentials/painn.yaml`.
    """
    word = text.strip()
    if word.endswith(_SUFFIXES):
        return {"extends": [word]}
    said = parse_yaml(word, f"--{key}") if word.startswith("{") else {"kind": word}
    return {key: said}


def label_sources(plan: Plan) -> list[Labels | Store]:
    """Return the files and stores with labels to train on."""
    return [item for item in plan.start if isinstance(item, Labels | Store)]


def _label_items(start: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the items of `start` that bring labels, unchanged."""
    items = start if isinstance(start, list) else []
    found = [
        x for x in items if isinstance(x, Mapping) and {"labels", "store"} & set(x)
    ]
    if not found:
        text = "expected labels, such as {labels: file.xyz, level: expensive, ...}"
        raise ConfigError(name, [Problem("start", f"{text}, got none")])
    return found
