"""The driver of i-PI: parity with the ASE calculator, beads as one batch, a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from tests.engines.conftest import Model, ipi_input

pytest.importorskip("ipi")
from ipi.pes import load_pes
from ipi.scripting import InteractiveSimulation
from ipi.utils.units import unit_to_user

from alloop.engines import ipi_driver

# i-PI's own: its hartree is newer than ASE's, 1e-7 relative
HARTREE = unit_to_user("energy", "electronvolt", 1.0)
BOHR = unit_to_user("length", "angstrom", 1.0)
FIELD = """
  <ffdirect name='alloop' pbc='false'>
    <pes>custom</pes>
    <pes_path>{driver}</pes_path>
    <batch_size>4</batch_size>
    <parameters>{{ {pars} }}</parameters>
  </ffdirect>
"""
THERMOSTAT = "<thermostat mode='pile_g'><tau units='femtosecond'>100</tau></thermostat>"


@pytest.fixture
def start(water_model: Model, tmp_path: Path) -> Path:
    atoms = water_model.atoms.copy()
    atoms.cell = np.eye(3) * 50.0  # i-PI wants a cell; the molecule is not periodic
    write(tmp_path / "start.xyz", atoms, format="extxyz")
    return tmp_path / "start.xyz"


def test_beads_are_one_batch_and_equal_the_calculator(
    water_model: Model, start: Path
) -> None:
    driver = load_pes("custom", ipi_driver.__file__)(
        template=str(start), model=str(water_model.file)
    )
    beads = [water_model.atoms.positions, water_model.far.positions]
    cell = np.eye(3) * 100.0
    with pytest.warns(UserWarning, match="does not trust"):
        answers = driver([cell, cell], [x / BOHR for x in beads])
    assert driver.evaluator.calls == 1
    for positions, (energy, forces, virial, extras) in zip(beads, answers, strict=True):
        atoms = water_model.atoms.copy()
        atoms.positions = positions
        atoms.calc = water_model.generation.calculator()
        right = atoms.get_potential_energy()
        assert energy * HARTREE == pytest.approx(right, abs=1e-5)
        right_forces = atoms.get_forces()
        np.testing.assert_allclose(forces * HARTREE / BOHR, right_forces, atol=1e-5)
        np.testing.assert_array_equal(virial, 0.0)
        surprise = atoms.calc.get_property("surprise", atoms)
        assert json.loads(extras)["surprise"] == pytest.approx(surprise, rel=1e-6)


@pytest.mark.filterwarnings(  # of i-PI: an old name of threading, a file left open
    "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_path_integral_md_runs_within_i_pi_and_writes_what_it_does_not_trust(
    water_model: Model, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(start.parent)
    pars = f"template: {start}, model: {water_model.file}, beyond: write, "
    pars += "file: beyond.xyz, surprise: -1.0, spacing: 2, table: trust.csv"
    simulation = InteractiveSimulation(
        ipi_input(
            FIELD.format(driver=ipi_driver.__file__, pars=pars),
            start,
            beads=4,
            mode="nvt",
            thermostat=THERMOSTAT,
        )
    )
    simulation.run(4)
    assert np.loadtxt("run.out").shape[0] >= 4
    frames = read("beyond.xyz", index=":")
    assert [frame.info["call"] for frame in frames] == [1, 3, 5]
    assert len(frames[0]) == 3
    rows = Path("trust.csv").read_text().splitlines()
    assert rows[0] == "call,frame,surprise,error_limit,beyond"
    assert len(rows) == 1 + 4 * 5  # four beads in each of five calls
