"""Conversion of text that a user typed to one level of theory."""

from alloop.config.validate import validate_tree
from alloop.config.yaml_text import parse_yaml
from alloop.core.errors import InputError
from alloop.core.levels import Level

_AT = "levels.expensive"


def level_of(text: str) -> Level:
    """Return the level for a short name, the path of a YAML file or a mapping.

    `hf/sto-3g`, `gfn2-xtb`, `configs/levels/emt.yaml`, `{kind: ase, calculator: ...}`;
    paths are relative to the working folder. Raises InputError, with the nearest
    spelling if there is one. Runs no program: `alloop.labels.levels.check_level` tests
    whether the level works on this machine.
    """
    word = text.strip()
    said = parse_yaml(word, "the level") if word.startswith("{") else word
    frame = {"name": "level", "start": [{"molecule": "H2"}]}
    plan, problems = validate_tree({**frame, "levels": {"expensive": said}})
    if plan is None or problems:
        mistakes = [
            f"{problem.path.removeprefix(_AT).lstrip('.')}: {problem.text}"
            for problem in problems
        ]
        raise InputError("; ".join(x.removeprefix(": ") for x in mistakes))
    return plan.levels.expensive.build()
