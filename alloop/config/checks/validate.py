"""Conversion of a plain tree to a Plan, with every mistake as a sentence.

The valid rest is kept, so that one mistake does not hide the others.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from alloop.config.sections.base import Section, section_members
from alloop.config.sections.explore import explorer_section
from alloop.config.sections.levels import CAMPAIGN_KEYS
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import (
    BASE,
    Problem,
    Tree,
    key_suggestion,
    shown_value,
)
from alloop.core.errors import InputError
from alloop.core.text import nearest_word
from alloop.labels.composite import SUM
from alloop.workers.batch_systems import BATCH_SYSTEMS

Loc: TypeAlias = tuple[int | str, ...]

# Values in place of missing sections, so that the rest of a plan can be checked; such a
# plan is never used.
STAND_INS: dict[Loc, Any] = {
    ("name",): "unnamed",
    ("start",): [{"molecule": "H2"}],
    ("levels",): {"expensive": {"kind": "toy", "stretch": 9.0}},
    ("levels", "expensive"): {"kind": "toy", "stretch": 9.0},
}
_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "keys and values",
    "model": "keys and values",
}
_BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "a number of at least {}"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "a number of at most {}"),
    "too_short": ("min_length", "a list of at least {}"),
    "string_too_short": ("min_length", "text of at least {} letter"),
}
# What other programs call a key or a value of a section, and how it is written here.
_FOREIGN_KEYS = {
    "cluster": {
        "time": "walltime: 4 h",
        "partition": "queue: NAME",
        "project": "account: NAME",
        "mem": "labels: {memory: 16 GB}",
        "memory": "labels: {memory: 16 GB}",
        "cores": "labels: {cores: 4}",
        "cpus-per-task": "labels: {cores: 4}",
        "cpus_per_task": "labels: {cores: 4}",
        "ncpus": "labels: {cores: 4}",
        "ntasks": "labels: {tasks: 4}",
        "nodes": "labels: {jobs: {most: 4}}",
        "gres": "learning: {gpus: 1}",
        "qos": "directives: [--qos=NAME]",
        "constraint": "directives: [--constraint=NAME]",
    }
}
_FOREIGN_VALUES = {"device": {"gpu": "cuda", "nvidia": "cuda", "cuda:0": "cuda"}}
_CLOSE = 0.8  # similarity of a word with a typing mistake
_PASSES = 5  # removing one mistake may reveal that a required key is missing


def validate_tree(tree: Tree) -> tuple[Plan | None, list[Problem]]:
    """Return the plan of the valid part of a tree, and the problems.

    The plan is None only if nothing is valid.
    """
    rest = _with_training_kind(copy.deepcopy(tree))
    if isinstance(explorers := rest.get("explore"), list):
        try:
            rest["explore"] = explorer_section(explorers)
        except InputError as error:
            del rest["explore"]
            plan, others = validate_tree(rest)
            return plan, [*others, Problem("explore", str(error))]
    problems: list[Problem] = []
    for attempt in range(_PASSES):
        try:
            return Plan.model_validate(rest), problems
        except ValidationError as error:
            mistakes = error.errors(include_url=False)
        if attempt == 0:
            problems = [_make_problem(m) for m in mistakes if not _is_echo(m, mistakes)]
        _prune_mistakes(rest, mistakes)
    return None, problems


def _with_training_kind(tree: Tree) -> Tree:
    """Set a missing kind of `training`: asteroid if there is a cheap level."""
    training, levels = tree.get("training"), tree.get("levels")
    if isinstance(training, dict) and "kind" not in training:
        two = isinstance(levels, dict) and levels.get("cheap") is not None
        training["kind"] = "asteroid" if two else "standard"
    return tree


def known_kinds() -> dict[str, set[str]]:
    """Return the keys of each `kind`.

    Those of a level that is only named are under `BASE`.
    """
    keys = {
        tag.strip("<>"): set(section.model_fields)
        for _, section, tag in _all_sections(Plan)
        if "kind" in section.model_fields
    }
    return {**keys, BASE: set(CAMPAIGN_KEYS)}


def _is_echo(mistake: ErrorDetails, mistakes: list[ErrorDetails]) -> bool:
    """Return True for a list that is too short only because its items are wrong."""
    loc = mistake["loc"]
    inside = (other["loc"][: len(loc)] == loc != other["loc"] for other in mistakes)
    return mistake["type"] == "too_short" and any(inside)


def _make_problem(mistake: ErrorDetails) -> Problem:
    return Problem(_dotted_path(mistake["loc"]), _mistake_sentence(mistake))


def _dotted_path(loc: Loc) -> str:
    return ".".join(str(part) for part in loc if not str(part).startswith("<"))


def _mistake_sentence(mistake: ErrorDetails) -> str:
    kind, loc, value = mistake["type"], mistake["loc"], mistake["input"]
    if kind == "extra_forbidden":
        return _no_such_key(loc)
    if kind == "missing":
        return f"is missing{_field_description(loc)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _no_such_kind(mistake)
    if kind == "literal_error":
        return _no_such_choice(mistake)
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    return (
        f"expected {_expected_value(mistake)}{_field_description(loc)}, got "
        f"{shown_value(value)}"
    )


def _expected_value(mistake: ErrorDetails) -> str:
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind in _BOUNDS:
        name, phrase = _BOUNDS[kind]
        return phrase.format(context[name])
    if kind == "string_pattern_mismatch":
        return "text of letters, digits and signs that fit there, on one line"
    words = _EXPECTED.get(kind.split("_")[0])
    return words or f"something else: {mistake['msg'].lower()}"


def _no_such_choice(mistake: ErrorDetails) -> str:
    choices = str(mistake["ctx"]["expected"]).replace("'", "`")
    word = str(mistake["input"]).lower()
    close = _FOREIGN_VALUES.get(_dotted_path(mistake["loc"]), {}).get(
        word, nearest_word(word, choices.split("`")[1::2])
    )
    hint = f"; did you mean `{close}`?" if close else ""
    return f"expected {choices}, got {shown_value(mistake['input'])}{hint}"


def _no_such_key(loc: Loc) -> str:
    """Return a sentence about an unknown key: where it belongs, or a near spelling."""
    key, place, owner = str(loc[-1]), _dotted_path(loc[:-1]), _owning_section(loc)
    sections = list(_all_sections(Plan))
    homes = [x for x in sections if key in x[1].model_fields]
    if (name := _FOREIGN_KEYS.get(place, {}).get(key)) is not None:
        systems = ", ".join(f"`{kind}`" for kind in BATCH_SYSTEMS)
        batch = "" if "queue" in owner.model_fields else f" with a `kind:` of {systems}"
        return f"no such key; here it is `{name}`{batch}"
    kinds = [tag.strip("<>") for path, _, tag in homes if path == f"{place}."]
    if kinds:
        return f"no such key here; only `kind: {kinds[0]}` has it"
    keys = [*owner.model_fields, *(["extends"] if owner is Plan else [])]
    if nearest_word(key, keys, cutoff=_CLOSE):
        return f"no such key; {key_suggestion(key, keys)}"
    if homes:
        return f"no such key here; it belongs under {_under(homes)}"
    names = {name for _, section, _ in sections for name in section.model_fields}
    close = nearest_word(key, names, cutoff=_CLOSE)
    if close is None:
        return f"no such key; {key_suggestion(key, keys)}"
    homes = [x for x in sections if close in x[1].model_fields]
    return f"no such key; did you mean `{close}` under {_under(homes)}?"


def _under(homes: Iterable[tuple[str, type[BaseModel], str]]) -> str:
    """Return `seeds:`, `stop:` or `explore:`: each section once, shallowest first."""
    paths = dict.fromkeys(path.rstrip(".") for path, _, _ in homes)
    *rest, last = (f"`{path}:`" for path in sorted(paths, key=lambda x: x.count(".")))
    return f"{', '.join(rest)} or {last}" if rest else last


def _no_such_kind(mistake: ErrorDetails) -> str:
    context, value = mistake.get("ctx", {}), mistake["input"]
    name = str(context["discriminator"]).replace("()", "")
    if mistake["type"] == "union_tag_invalid":
        tags = str(context["expected_tags"]).replace("<", "").replace(">", "")
        choices = [x.strip(" '") for x in tags.split(",")]
        tag = str(context["tag"]).strip("<>")
        return f"there is no kind `{tag}`; {key_suggestion(tag, choices)}"
    if isinstance(value, Mapping):
        return f"expected {name}, got the keys {', '.join(map(str, value)) or 'none'}"
    return f"expected keys and values ({name}: ...), got {shown_value(value)}"


def _field_description(loc: Loc) -> str:
    """Return the unit and meaning of a field, in brackets."""
    if loc and str(loc[-1]).startswith("<"):
        loc = loc[:-1]
    if not loc or not isinstance(loc[-1], str):
        return ""
    field = _owning_section(loc).model_fields.get(loc[-1])
    return f" ({field.description})" if field is not None and field.description else ""


def _owning_section(loc: Loc) -> type[BaseModel]:
    """Return the section that holds the last part of a location."""
    owner: type[BaseModel] = Plan
    inside: dict[str, type[Section]] = {}
    for part in loc[:-1]:
        if part in inside:
            owner = inside[str(part)]
        elif isinstance(part, str) and part in owner.model_fields:
            inside = section_members(owner.model_fields[part].annotation)
            owner = inside.get("", owner)
    return owner


def _all_sections(
    owner: type[BaseModel], path: str = "", tag: str = ""
) -> Iterator[tuple[str, type[BaseModel], str]]:
    """Yield all sections beneath one, with their dotted path and tag."""
    if path:
        yield path, owner, tag
    for name, field in owner.model_fields.items():
        for inner, section in section_members(field.annotation).items():
            yield from _all_sections(section, f"{path}{name}.", inner)


def _prune_mistakes(tree: Tree, mistakes: list[ErrorDetails]) -> None:
    """Remove wrong values; if a required key is missing, remove its whole section."""
    for mistake in mistakes:
        loc = tuple(part for part in mistake["loc"] if not str(part).startswith("<"))
        if SUM in loc:  # its parts may be written in other notations
            loc = loc[: loc.index(SUM)]
        if loc in STAND_INS:
            _set_at(tree, loc, copy.deepcopy(STAND_INS[loc]))
        else:
            _set_at(tree, loc[:-1] if mistake["type"] == "missing" else loc, None)
    start = tree.get("start")
    if isinstance(start, list):  # a stand-in keeps the indices of the others
        tree["start"] = [{"molecule": "H2"} if x is None else x for x in start]


def _set_at(tree: Any, loc: Loc, value: Any) -> None:
    """Set the value at a location, or remove it if the value is None."""
    for part in loc[:-1]:
        tree = _child_at(tree, part)
    if isinstance(tree, list) and isinstance(loc[-1], int):
        tree[loc[-1]] = value
    elif isinstance(tree, dict) and loc:
        tree.pop(loc[-1], None)
        tree |= {} if value is None else {loc[-1]: value}


def _child_at(tree: Any, part: int | str) -> Any:
    if isinstance(tree, list):
        return tree[int(part)]
    return tree.get(part) if isinstance(tree, dict) else None
