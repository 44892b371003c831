"""Campaigns at constant pressure: what their settings mean, and what is refused."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from alloop.config.build import (
    build_levels,
    dynamics_settings,
    resolve_defaults,
    worker_settings,
)
from alloop.config.checks.plan_checks import pressure_problems, strain_problems
from alloop.config.checks.validate import validate_tree
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import dump_yaml, parse_yaml
from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from alloop.core.units import GIGAPASCAL
from alloop.labels.direct import DirectLabeller
from alloop.loop.commands import Prepare
from alloop.md.barostat import Barostat
from alloop.workers.first_frames import prepare_molecule

ARGON = """
name: argon
start: [{file: argon.xyz}]
levels:
  cheap: {kind: ase, calculator: ase.calculators.lj.LennardJones}
  expensive: gfn1-xtb
explore: {pressure: 2.0, barostat: {cell: anisotropic, time: 250}}
"""
CRYSTAL = from_atoms(bulk("Ar", "fcc", a=5.26) * (2, 1, 1))


def plan(text: str = ARGON) -> Plan:
    found, problems = validate_tree(parse_yaml(text, "x"))
    assert found is not None
    assert not problems
    return resolve_defaults(found)


def test_pressure_and_barostat_are_those_of_walkers_and_first_frames() -> None:
    asked = plan()
    expected = Barostat(2.0 * GIGAPASCAL, 250.0, 0.02 / GIGAPASCAL, shape="anisotropic")
    assert dynamics_settings(asked.explore).barostat == expected
    workers = worker_settings(asked, build_levels(asked))
    assert workers.dynamics.barostat == expected
    assert workers.beginning.test.barostat == expected
    assert plan(dump_yaml(asked.model_dump(mode="json"))).explore == asked.explore


def test_without_a_pressure_cells_stay() -> None:
    still = plan(ARGON.replace("pressure: 2.0, ", ""))
    assert dynamics_settings(still.explore).barostat is None
    water = from_atoms(molecule("H2O"))
    assert not list(pressure_problems(still, build_levels(still), [water]))


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("pressure: 2.0", "pressure: 1 bar", "explore.pressure", "GPa"),
        ("pressure", "kind: verlet, pressure", "explore.pressure", "`kind: langevin`"),
        ("time: 250", "time: 0", "explore.barostat.time", "above 0"),
        ("anisotropic", "square", "explore.barostat.cell", "`anisotropic`"),
        ("time", "tau", "explore.barostat.tau", "no such key"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(old, new, path, words) -> None:
    _, problems = validate_tree(parse_yaml(ARGON.replace(old, new, 1), "x"))
    assert words in {x.path: x.text for x in problems}[path]


def test_molecules_and_levels_without_stress_are_one_sentence() -> None:
    asked, water = plan(), from_atoms(molecule("H2O"))
    assert not list(pressure_problems(asked, build_levels(asked), [CRYSTAL]))
    (found,) = pressure_problems(asked, build_levels(asked), [CRYSTAL, water])
    assert found.path == "explore.pressure"
    assert "repeat in all directions, got H2O" in found.text
    for level, words in (
        ("{kind: toy}", "gives no stress"),
        ("hf/sto-3g", "no stress"),
    ):
        cheap = "{kind: ase, calculator: ase.calculators.lj.LennardJones}"
        other = plan(ARGON.replace(cheap, level))
        (found,) = pressure_problems(other, build_levels(other), [CRYSTAL])
        assert words in found.text


def prepared(seeds: str) -> tuple[Frame, ...]:
    """The first frames of a crystal of argon."""
    asked = plan(f"{ARGON}seeds: {seeds}\n")
    assert not list(strain_problems(asked, [CRYSTAL]))
    levels = build_levels(asked)
    command = Prepare(0, CRYSTAL, 8, 0)
    oracle = DirectLabeller(levels["cheap"])
    return prepare_molecule(command, worker_settings(asked, levels), oracle).seeds


def test_first_frames_of_a_crystal_have_several_volumes() -> None:
    still, strained = (
        prepared("{kind: rattle}"),
        prepared("{kind: rattle, strain: 0.03}"),
    )
    volumes = [np.linalg.det(frame.cell) for frame in strained]
    assert {np.linalg.det(frame.cell) for frame in still} == {
        np.linalg.det(CRYSTAL.cell)
    }
    assert 0.01 < np.std(volumes) / np.mean(volumes) < 0.15
    for one, other in zip(still, strained, strict=True):  # the same displacements
        np.testing.assert_allclose(
            one.positions @ np.linalg.inv(one.cell),
            other.positions @ np.linalg.inv(other.cell),
            atol=1e-6,
        )


def test_molecules_have_no_cell_to_strain() -> None:
    asked = plan(f"{ARGON}seeds: {{strain: 0.03}}\n")
    (found,) = strain_problems(asked, [CRYSTAL, from_atoms(molecule("H2O"))])
    assert (found.path, "H2O without" in found.text) == ("seeds.strain", True)
