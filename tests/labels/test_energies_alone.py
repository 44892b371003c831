"""Levels with `forces: none`: the same energies, NaN for forces, every gate left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.config.load import parse_level
from alloop.core.frame import Frame
from alloop.core.levels import Level, energy_level, make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.direct import DirectLabeller, label_frame
from alloop.labels.levels import (
    check_level,
    level_from_name,
    pyscf_level,
    toy_level,
)
from alloop.labels.programs import level_cost
from alloop.labels.recheck import recheck_label, tighter_level
from alloop.labels.result import Result, no_forces
from alloop.store.cache import LabelCache

WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.01], [0.0, 0.757, 0.587], [0.03, -0.757, 0.6]]),
)
CLOSE = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2]]))


def made(level: Level) -> Label:
    label = label_frame(level, WATER)
    assert isinstance(label, Label), label
    return label


@pytest.mark.parametrize(
    "name", ["hf/sto-3g", "mp2/sto-3g", "ccsd/sto-3g", "ccsd(t)/sto-3g", "gfn2-xtb"]
)
def test_the_energy_is_that_of_the_level_with_forces(name: str) -> None:
    if name == "gfn2-xtb":
        pytest.importorskip("tblite")
    level = level_from_name(name)
    bare = energy_level(level)
    assert bare.id != level.id
    assert bare.title == f"{level.title}, energies"
    label, other = made(bare), made(level)
    assert label.energy == other.energy
    assert not label.has_forces
    assert label.forces.shape == (3, 3)
    assert label.is_numeric
    assert other.has_forces
    assert energy_level(bare) == bare


def test_correlated_energies_may_be_density_fitted() -> None:
    level = pyscf_level("mp2", "cc-pvdz", density_fit=True)
    (problem,) = check_level(level, ["H", "O"])
    assert "`forces: none` for energies alone" in problem
    assert not check_level(energy_level(level), ["H", "O"])
    fitted, exact = made(energy_level(level)), made(level_from_name("mp2/cc-pvdz"))
    assert 1e-6 < abs(fitted.energy - exact.energy) < 0.01


def test_a_sum_has_no_forces_where_a_part_has_none() -> None:
    text = "{sum: [%s, ccsd(t)/sto-3g, {minus: mp2/sto-3g}]%s}"
    bare = "{kind: pyscf, method: mp2, basis: 6-31g, forces: none}"
    one = parse_level(text % (bare, ""))
    whole = parse_level(text % ("mp2/6-31g", ", forces: none"))
    full = parse_level(text % ("mp2/6-31g", ""))
    assert not one.has_forces
    assert not whole.has_forces
    assert full.has_forces
    assert one.title == "MP2/6-31G + CCSD(T)/STO-3G - MP2/STO-3G, energies"
    energies = [made(level).energy for level in (one, whole, full)]
    assert energies[0] == energies[1] == energies[2]


def test_gates_and_rechecks_look_at_the_energy() -> None:
    level = energy_level(toy_level())
    refused = label_frame(level, CLOSE)
    assert isinstance(refused, Unlabelled)
    assert refused.failure is Failure.GEOMETRY
    label = made(level)
    tight = DirectLabeller(tighter_level(level))
    noise = recheck_label(WATER, label, tight, np.random.default_rng(0))
    assert noise.energy < 1e-8
    assert np.isnan(noise.force_rms)
    slope = make_level("toy", {**level.settings, "gate": {"slope": 1.0}})
    assert "slope_error" not in made(slope).details


def energy_only(_: Frame, settings: Mapping[str, Any]) -> Result:
    return Result(float(settings["value"]), None)  # type: ignore[arg-type]


def infinite(frame: Frame, _: Mapping[str, Any]) -> Result:
    return Result(float("inf"), no_forces(frame))


def test_a_function_of_the_user_may_return_no_forces() -> None:
    kind = f"{__name__}:energy_only"
    level = make_level(kind, {"value": -3.0})
    assert made(energy_level(level)).energy == -3.0
    refused = label_frame(level, WATER)
    assert isinstance(refused, Unlabelled)
    assert "expected forces (3, 3) in eV/Å" in refused.message
    wild = label_frame(energy_level(make_level(f"{__name__}:infinite", {})), WATER)
    assert isinstance(wild, Unlabelled)
    assert wild.message == "the energy is not finite"


def test_a_label_passes_child_and_cache(tmp_path: Path) -> None:
    level = energy_level(toy_level())
    with IsolatedLabeller(level) as child:
        label = child.label(WATER)
    assert isinstance(label, Label)
    assert np.isnan(label.forces).all()
    cache = LabelCache(tmp_path)
    cache.put(label)
    again = cache.get(level.id, WATER.id)
    assert isinstance(again, Label)
    assert again.energy == label.energy
    assert not again.has_forces


def test_typical_costs_are_lower() -> None:
    for name in ("hf/cc-pvdz", "b3lyp/def2-svp", "mp2/cc-pvdz", "ccsd(t)/cc-pvdz"):
        level = level_from_name(name)
        ratio = level_cost(level).seconds(WATER) / level_cost(
            energy_level(level)
        ).seconds(WATER)
        assert ratio > 1.2, name
