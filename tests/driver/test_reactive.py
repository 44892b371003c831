"""Campaigns in which bonds may break: species and their share of the labels."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alloop import Campaign
from alloop.config.build import build_rules, resolve_defaults
from alloop.config.checks.plan_checks import (
    plan_warnings,
    reactive_problems,
    section_conflicts,
)
from alloop.config.checks.validate import validate_tree
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import parse_yaml
from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from alloop.core.levels import make_level
from alloop.core.records import Candidate
from alloop.core.species import bonded_species
from alloop.history.label_entries import label_entries
from alloop.loop import events as e
from alloop.report.analysis.reactions import reacted_labels, reaction_sentences
from alloop.selection import MostSurprising, PerMolecule, PerSpecies
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy
from tests.driver.test_own_parts import stop_after

HOT = {"walkers": 4, "batch": 2, "steps": 120, "piece": 120, "stride": 5}
HOT |= {"temperature": 15_000, "shapes": None}
START = "{name: x, start: [{molecule: H2O}], levels: {expensive: {kind: toy}}"


def hydrogen_cyanide(*, moved: bool = False, apart: bool = False) -> Frame:
    """HCN, HNC or H far from CN."""
    hydrogen = 2.2 if moved else -6.0 if apart else -1.07
    line = np.array([[0, 0, 0], [0, 0, 1.16], [0, 0, hydrogen]])
    return Frame(np.array([6, 7, 1]), line)


def test_species_are_told_apart_by_their_bonds() -> None:
    assert bonded_species(hydrogen_cyanide()) == "CH·N"
    assert bonded_species(hydrogen_cyanide(moved=True)) == "C·NH"
    assert bonded_species(hydrogen_cyanide(apart=True)) == "C·N + H"
    frame = from_atoms(molecule("CH3CH2OCH3"))
    order = np.random.default_rng(1).permutation(len(frame))
    mixed = Frame(frame.numbers[order], frame.positions[order])
    assert bonded_species(frame) == bonded_species(mixed)
    assert bonded_species(frame).startswith("CH2·CH3·CH3·O ")
    isomers = ("isobutane", "trans-butane", "bicyclobutane", "cyclobutane")
    assert len({bonded_species(from_atoms(molecule(x))) for x in isomers}) == 4


def test_each_species_has_its_share_of_the_quota() -> None:
    frames = [hydrogen_cyanide() for _ in range(8)]
    frames += [hydrogen_cyanide(moved=True), hydrogen_cyanide(apart=True)]
    pool = [
        Candidate(
            frame=Frame(x.numbers, x.positions + 0.001 * i),
            molecule=0,
            walker=0,
            step=i,
            surprise=10.0 - i,
            energy=0.0,
            forces=np.zeros((3, 3)),
            descriptor=np.array([float(i)]),
        )
        for i, x in enumerate(frames)
    ]

    def chosen(selector: PerMolecule) -> Counter[str]:
        picked = selector.select(
            pool, np.zeros((0, 1)), 4, np.random.default_rng(0), 0.0
        )
        return Counter(bonded_species(pool[i].frame) for i in picked)

    rule = MostSurprising(balance=0.0)
    assert chosen(PerMolecule(rule)) == {"CH·N": 4}
    assert chosen(PerSpecies(rule)) == {"CH·N": 2, "C·NH": 1, "C·N + H": 1}


def plan(rest: str) -> Plan:
    found, problems = validate_tree(parse_yaml(f"{START}, {rest}}}", "x"))
    assert found is not None
    assert not problems
    return resolve_defaults(found)


def test_the_word_reactive_is_enough() -> None:
    reactive = plan("explore: {guards: reactive}")
    assert reactive.explore.guards.build().reactive
    assert reactive.explore.guards.build().contact == 0.6
    assert isinstance(build_rules(reactive, validated=False).selector, PerSpecies)
    usual = build_rules(plan("explore: {}"), validated=False)
    assert not isinstance(usual.selector, PerSpecies)


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("explore: {guards: {reactive: true, bond: 3}}", "explore.guards.bond"),
        (
            "explore: {guards: reactive}, "
            "flag: {selection: {kind: surprise, molecules: pooled}}",
            "flag.selection.molecules",
        ),
    ],
)
def test_settings_that_forbid_what_others_allow_are_refused(
    rest: str, path: str
) -> None:
    assert [x.path for x in section_conflicts(plan(rest), set())] == [path]


def test_cells_are_refused_and_fragile_levels_warned_of() -> None:
    reactive = plan("explore: {guards: reactive, shapes: null, temperature: 300}")
    cell = Frame(np.array([2]), np.zeros((1, 3)), cell=9 * np.eye(3), pbc=(True,) * 3)
    (problem,) = reactive_problems(reactive, [cell])
    assert problem.path == "explore.guards.reactive"
    assert not list(reactive_problems(reactive, [hydrogen_cyanide()]))
    level = make_level("pyscf", {"title": "ccsd(t)", "method": "ccsd(t)"})
    first, second = plan_warnings(reactive, {"expensive": level})
    assert first.startswith("levels.expensive")
    assert second.startswith("explore.temperature")


def reacting(folder: Path, **guards: object) -> Campaign:
    folder.mkdir(exist_ok=True)
    settings = {"force": None, "heat": None, **guards}
    return Campaign.from_yaml(write_toy(folder, explore={**HOT, "guards": settings}))


def stops(campaign: Campaign) -> Counter[str]:
    """The guard rails that stopped walkers."""
    return Counter(
        str(walker.stopped).split(":")[0]
        for _, event in campaign.history().of_kind(e.Explored)
        for walker in event.walkers
        if walker.stopped
    )


def test_a_hot_molecule_reacts_and_the_campaign_tells(tmp_path: Path) -> None:
    usual, free = reacting(tmp_path / "usual"), reacting(tmp_path / "f", reactive=True)
    for campaign in (usual, free):
        assert campaign.run().exit_code == 0
    assert any("bond" in stop for stop in stops(usual))
    assert not any("bond" in stop for stop in stops(free))
    history = free.history()
    labels = list(label_entries(history))
    arms = np.array([np.diff(x.frame.positions[[1, 0, 2]], axis=0) for x in labels])
    broken = np.linalg.norm(arms, axis=2) > 1.3 * (0.66 + 0.31)  # covalent radii
    count = int(broken.any(axis=1).sum())
    assert count == len(reacted_labels(history)) > 10
    assert not list(reaction_sentences(usual.history()))
    (sentence,) = reaction_sentences(history)
    assert f"{count} of {len(labels)} labels" in sentence
    assert "H + OH (" in sentence
    stopped = reacting(tmp_path / "stopped", reactive=True)
    assert stopped.run(observer=stop_after(45)).exit_code == 3
    stopped.run()
    assert store_contents(stopped.store) == store_contents(free.store)
