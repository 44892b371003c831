"""Sections: each survives YAML with any values, and refuses keys that it has not."""

from typing import Any

import pytest
from pydantic import ValidationError

from alloop.config.checks.validate import _all_sections
from alloop.config.sections.base import Section
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import dump_yaml, parse_yaml

SECTIONS = {
    f"{section.__name__} {tag}".strip(): section
    for _, section, tag in _all_sections(Plan)
}
WORKERS = {"memory": "4 GB"}
REQUIRED: dict[str, Any] = {  # keys that have no default, with one right value
    **{"molecule": "H2", "smiles": "CC", "store": "old.zarr", "file": "a.xyz"},
    **{"labels": "a.xyz", "level": "cheap", "path": __file__, "address": "tcp://a:1"},
    **{"energy_unit": "eV", "length_unit": "bohr", "potential": {"kind": "ani"}},
    **{"method": "hf", "basis": "sto-3g", "calculator": "ase.calculators.emt.EMT"},
    **{
        "expensive": {"kind": "toy"},
        "walltime": "1:00:00",
        "maximum": 2,
        "memory": "4 GB",
    },
    **{"name": "first", "on": "cheap", "steps": 7, "kind": "test-time"},
    **{"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"},
    **{"electrons": 6, "orbitals": 6},
    "stages": [{"name": "first", "on": "cheap", "steps": 7}],
    "sum": [{"factor": 0.5, "level": {"kind": "toy"}}] * 2,
}
FIXED = {("Table", "recheck")}  # a table has no second label


def smallest(name: str) -> dict[str, Any]:
    """The keys of a section that have no default."""
    section, tag = SECTIONS[name], name.partition(" ")[2].strip("<>")
    keys = [k for k, field in section.model_fields.items() if field.is_required()]
    tree = {key: REQUIRED[key] for key in keys}
    if "kind" in section.model_fields and tag:
        tree["kind"] = "mine:label" if tag == "program" else tag
    if "webhook" in section.model_fields:
        tree["command"] = "true"  # one receiver of several is required
    if "factor" in section.model_fields and "level" in keys:
        tree["level"] = {"kind": "toy"}
    if "torsion" in section.model_fields:
        tree["torsion"] = [0, 1, 2, 3]  # one of several is required
    if "walltime" in keys:
        tree["labels"] = WORKERS
    return tree


def other_numbers(section: type[Section], tree: dict[str, Any]) -> dict[str, Any]:
    """For each key whose default is a number, another one that the section takes."""
    others = {}
    for key, field in section.model_fields.items():
        if type(field.default) not in (int, float) or (section.__name__, key) in FIXED:
            continue
        kind = type(field.default)
        for value in (field.default * 2, field.default / 2, 1, 0.5, 0.1, 20, 300):
            if (
                value != field.default
                and kind(value) == value
                and _takes(section, {**tree, key: kind(value)})
            ):
                others[key] = kind(value)
                break
        else:
            pytest.fail(f"{section.__name__} takes no {key} but its default")
    return others


def _takes(section: type[Section], tree: dict[str, Any]) -> bool:
    try:
        section.model_validate(tree)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_comes_back_from_its_yaml(name: str) -> None:
    section, tree = SECTIONS[name], smallest(name)
    others = other_numbers(section, tree)
    for chosen in ({}, *({key: value} for key, value in others.items())):
        built = section.model_validate({**tree, **chosen})
        assert {key: getattr(built, key) for key in chosen} == chosen
        text = dump_yaml({"here": built.model_dump(mode="json")})
        again = parse_yaml(text, "here")["here"]
        if isinstance(again, str):  # a kind without further keys is written as a word
            again = {"kind": again}
        assert section.model_validate(again) == built


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_refuses_a_key_that_it_has_not_by_its_name(name: str) -> None:
    if SECTIONS[name].model_config["extra"] == "allow":
        pytest.skip("a user's own function takes any key")
    with pytest.raises(ValidationError) as caught:
        SECTIONS[name].model_validate({**smallest(name), "colour": "red"})
    (mistake,) = caught.value.errors()
    assert (mistake["type"], mistake["loc"][-1]) == ("extra_forbidden", "colour")
