"""Fragments that configurations extend."""

import os
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from alloop.config import (
    load_campaign,
    parse_campaign,
)
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.sections.data import Sampled
from alloop.config.yaml_text import collect_fragments, merge_trees, parse_yaml
from alloop.core.errors import InputError
from tests.config.toy_campaign import TOY, problems

ROOT = Path(__file__).parents[2]


FRAGMENTS = [*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/potentials/*.yaml")]


@pytest.mark.parametrize("path", sorted(FRAGMENTS), ids=str)
def test_each_fragment_that_we_ship_can_be_extended(path: Path) -> None:
    tree = {"extends": str(path), **parse_yaml(TOY, "toy")}
    plan, mistakes = validate_tree(collect_fragments(tree, ROOT, "x", known_kinds()))
    assert plan is not None
    assert mistakes == []


def test_later_fragments_win_and_the_campaign_wins_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nexplore: {steps: 10, walkers: 2}\n")
    (tmp_path / "b.yaml").write_text("seed: 2\nexplore: {steps: 20}\n")
    text = "extends: [a.yaml, b.yaml]\n" + TOY + "explore: {stride: 4}"
    setup = parse_campaign(text, tmp_path)
    assert setup.seed == 2
    explore = setup.plan.explore
    assert (explore.steps, explore.walkers, explore.stride) == (20, 2, 4)


def test_paths_in_a_fragment_are_relative_to_the_fragment(tmp_path: Path) -> None:
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/x.yaml").write_text(
        "extends: ../y.yaml\nstart: [{file: w.xyz}]\n"
    )
    (tmp_path / "far/y.yaml").write_text("store: s.zarr\n")
    write(tmp_path / "far/deep/w.xyz", molecule("H2O"))
    text = TOY.replace("start: [{molecule: H2O}]\n", "") + "extends: far/deep/x.yaml"
    setup = parse_campaign(text, tmp_path)
    assert setup.store == tmp_path / "far/s.zarr"
    assert setup.molecules == ("H2O",)


def test_another_kind_keeps_only_the_keys_that_it_knows() -> None:
    below = {"explore": {"kind": "langevin", "friction": 0.1, "steps": 7}}
    above = {"explore": {"kind": "verlet"}}
    assert merge_trees(below, above, known_kinds()) == {
        "explore": {"kind": "verlet", "steps": 7}
    }


@pytest.mark.parametrize("file", ["/dev/zero", "pipe", ".", "page.html", "text"])
def test_a_foreign_file_that_is_extended_is_refused(tmp_path: Path, file: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes: a reader would wait for ever
    (tmp_path / "page.html").write_text("<html><body>no YAML: [</body></html>")
    (tmp_path / "text").write_text("root:x:0:0\n")
    (tmp_path / "x.yaml").write_text(f"extends: {file}\n" + TOY)
    with pytest.raises(InputError, match="expected"):
        load_campaign(tmp_path / "x.yaml")


def test_a_circle_of_fragments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    assert "extends this" in problems("extends: a.yaml\n" + TOY, tmp_path)["extends"]


def test_a_missing_fragment_is_named(tmp_path: Path) -> None:
    assert "`no.yaml` is not" in problems("extends: no.yaml", tmp_path)["extends"]
    assert "list of files" in problems("extends: [3]", tmp_path)["extends"]


def test_a_fragment_with_the_old_name_lies_beneath_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("test: {frames: 9, each: 2}\n")
    text = TOY + "extends: below.yaml\nvalidation: {frames: 12}\n"
    found = parse_campaign(text, tmp_path).plan.validation
    assert isinstance(found, Sampled)
    assert (found.frames, found.each) == (12, 2)
