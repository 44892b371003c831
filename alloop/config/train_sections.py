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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from alloop.config.build import resolve_defaults
from alloop.config.checks.plan_checks import device_problems
from alloop.config.checks.training_checks import training_problems
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.load import own_model
from alloop.config.sections.clusters import Local
from alloop.config.sections.data import Labels, Store
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import NetworkSection
from alloop.config.sections.training import Asteroid, Standard
from alloop.config.yaml_text import (
    ConfigError,
    Problem,
    Tree,
    collect_fragments,
    parse_yaml,
)
from alloop.core.errors import InputError
from alloop.models.settings import is_pretrained

PresetName: TypeAlias = Literal["quick", "standard", "best"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Length and pace of a training: steps, batches and peak learning rates.

    finetune_lr: of the last stage, after cheap labels; a quarter of the steps is its.
    """

    steps: int
    batch: int
    lr: float
    finetune_lr: float


_FINE_SHARE = 0.25  # of the steps, after cheap labels
_PASSES = 300  # of fine-tuning through the expensive labels; many more do harm
_CHOICE: dict[int, PresetName] = {0: "quick", 100: "standard", 1000: "best"}
PRESETS: Mapping[PresetName, Preset] = {
    "quick": Preset(4000, 10, 5e-3, 1e-3),
    "standard": Preset(12_000, 5, 2.5e-3, 4e-4),
    "best": Preset(30_000, 5, 2.5e-3, 4e-4),
}
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
    section = parse_yaml(word, f"--{key}") if word.startswith("{") else {"kind": word}
    return {key: section}


def preset_name(word: str | None) -> PresetName | None:
    """Return the preset of that name; raise InputError where there is none."""
    if word is None:
        return None
    for name in PRESETS:
        if word == name:
            return name
    names = ", ".join(PRESETS)
    raise InputError(f"expected a preset, one of {names}, got `{word}`")


def chosen_preset(plan: Plan, cheap: int, expensive: int) -> PresetName | None:
    """Return the preset for so many labels to train on, by default.

    None where the file sets steps, batch or learning rates itself, and for potentials
    whose training has none of them or begins from a trained network.
    """
    training = plan.training
    if not isinstance(training, Asteroid | Standard) or not _is_new_network(plan):
        return None
    if training.model_fields_set & {*_preset_values(training, "quick", 1)}:
        return None
    labels = cheap + expensive
    return _CHOICE[max(bound for bound in _CHOICE if bound <= labels)]


def with_preset(plan: Plan, name: PresetName, expensive: int) -> Plan:
    """Return the plan with a preset's values for what its `training:` does not set.

    expensive: the number of expensive labels to train on. Raises InputError where the
    training or the potential has no presets.
    """
    training = plan.training
    if not isinstance(training, Asteroid | Standard) or not _is_new_network(plan):
        raise InputError(
            "presets are for new networks and training of kind asteroid or standard, "
            f"got `{plan.potential.kind}` with "
            f"`{'none' if training is None else training.kind}`; leave --preset out"
        )
    values = _preset_values(training, name, expensive)
    keys = training.model_fields_set
    update = {key: value for key, value in values.items() if key not in keys}
    return plan.model_copy(update={"training": training.model_copy(update=update)})


def _is_new_network(plan: Plan) -> bool:
    potential = plan.potential
    return isinstance(potential, NetworkSection) and not is_pretrained(potential.kind)


def _preset_values(
    training: Asteroid | Standard, name: PresetName, expensive: int
) -> dict[str, int | float]:
    """Return the keys of a `training:` section that a preset sets, and their values."""
    preset = PRESETS[name]
    common = {"batch": preset.batch, "lr": preset.lr}
    if isinstance(training, Standard):
        return {**common, "steps": preset.steps}
    passes = max(1, _PASSES * expensive // preset.batch)
    fine = min(round(_FINE_SHARE * preset.steps), passes)
    default = Asteroid(kind="asteroid")
    rest = preset.steps - fine
    teacher = round(rest * default.teacher / (default.teacher + default.pretrain))
    return {
        **common,
        "teacher": teacher,
        "pretrain": rest - teacher,
        "finetune": fine,
        "finetune_lr": preset.finetune_lr,
    }


def label_sources(plan: Plan) -> list[Labels | Store]:
    """Return the files and stores with labels to train on."""
    return [item for item in plan.start if isinstance(item, Labels | Store)]


def _label_items(start: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the items of `start` that bring labels, unchanged."""
    items = start if isinstance(start, list) else []
    labels = [
        x for x in items if isinstance(x, Mapping) and {"labels", "store"} & set(x)
    ]
    if not labels:
        text = "expected labels, such as {labels: file.xyz, level: expensive, ...}"
        raise ConfigError(name, [Problem("start", f"{text}, got none")])
    return labels
