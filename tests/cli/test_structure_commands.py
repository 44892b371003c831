"""`alloop relax` and `alloop vibrations`, on the model of a toy campaign of ammonia."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from ase.vibrations import Vibrations

from alloop import Campaign
from alloop.cli.app import run_command
from tests.conftest import write_toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a campaign that has run, and three structures of its molecule."""
    folder = tmp_path_factory.mktemp("structures")
    write(folder / "start.xyz", molecule("NH3"))
    file = write_toy(folder, start=[{"file": "start.xyz"}])
    assert Campaign.from_yaml(file).run().exit_code == 0
    shaken = [molecule("NH3") for _ in range(3)]
    for seed, atoms in enumerate(shaken):
        atoms.rattle(0.04, seed=seed)
    write(folder / "shaken.xyz", shaken)
    write(folder / "water.xyz", molecule("H2O"))
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


MODEL = ["--store", "toy.zarr"]


def test_structures_are_relaxed_on_the_model_together(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", "relaxed.extxyz", "--table", "relaxed.csv", "--force"]
    assert run_command(["relax", "shaken.xyz", *MODEL, *files, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [x["structure"] for x in facts] == [0, 1, 2]
    calculator = Campaign.from_store(here / "toy.zarr").calculator()
    for fact, atoms in zip(facts, read(here / "relaxed.extxyz", ":"), strict=True):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(fact["energy"], abs=1e-6)
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.0101
        assert calculator.results["surprise"] == pytest.approx(fact["surprise"])
        assert fact["moved"] > 0.0
    with (here / "relaxed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(x["energy"]) for x in rows] == [x["energy"] for x in facts]
    assert run_command(["relax", "shaken.xyz", *MODEL]) == 0
    assert "3 of 3 relaxed" in capsys.readouterr().out


def test_wavenumbers_are_those_of_ase(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", "modes.extxyz", "--table", "modes.csv", "--picture", "modes.svg"]
    source = ["vibrations", "shaken.xyz@0", *MODEL, *files, "--force"]
    assert run_command([*source, "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    atoms = read(here / "modes.extxyz")
    assert atoms.arrays["mode_5"].shape == (4, 3)
    atoms.calc = Campaign.from_store(here / "toy.zarr").calculator()
    ours = Vibrations(atoms, name=str(here / "cache"), delta=0.005)
    ours.run()
    expected = ours.get_frequencies()
    signed = np.sort(np.real(expected) - np.imag(expected))
    theirs = np.sort(np.abs(signed))[-3:]
    assert np.sort(np.abs(facts["wavenumbers"]))[-3:] == pytest.approx(theirs, abs=2.0)
    assert facts["geometry"] == "nonlinear"
    assert facts["intensities"] is None
    with (here / "modes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(x["wavenumber"]) for x in rows] == facts["wavenumbers"]
    assert "<svg" in (here / "modes.svg").read_text()
    assert facts["gas"]["gibbs"] < facts["gas"]["enthalpy"]


def test_fundamentals_lie_below_harmonic_wavenumbers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of bonds that are Morse oscillators; the model's and the level's agree."""
    files = ["--table", "lines.csv", "--out", "lines.extxyz", "--force"]
    source = ["vibrations", "shaken.xyz@0", "--anharmonic"]
    assert run_command([*source, "--level", "{kind: toy}", *files, "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    harmonic, fundamentals = facts["wavenumbers"], facts["fundamentals"]
    assert harmonic == sorted(harmonic)
    below = np.array(harmonic) - fundamentals
    assert (below[-3:] > 20.0).all()
    assert facts["anharmonic_zero_point"] < facts["gas"]["zero_point"]
    with (here / "lines.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(x["fundamental"]) for x in rows] == fundamentals
    assert read(here / "lines.extxyz").info["fundamentals"] == pytest.approx(
        fundamentals
    )
    assert run_command([*source, *MODEL]) == 0
    told = capsys.readouterr().out
    assert "cm⁻¹ anharmonic" in told
    assert "anharmonic zero-point energy" in told


def test_fundamentals_of_linear_molecules_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "linear.xyz", molecule("CO2"))
    source = ["vibrations", "linear.xyz", "--level", "{kind: toy}", "--no-relax"]
    assert run_command([*source, "--anharmonic"]) == 2
    assert "expected a bent molecule" in capsys.readouterr().err


def test_a_structure_that_is_no_minimum_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = ["--level", "{kind: toy}", "--no-relax"]
    assert run_command(["vibrations", "shaken.xyz@1", *level]) == 0
    told = capsys.readouterr()
    assert "cm⁻¹" in told.out
    assert "structure 0 is no stationary point" in told.err


@pytest.mark.parametrize("command", ["relax", "vibrations"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shaken.xyz"], "give `--store STORE` or `--model FILE`"),
        (["shaken.xyz", *MODEL, "--level", "{kind: toy}"], "a model or a level, got"),
        (["water.xyz", *MODEL], "H2O"),
        (["shaken.xyz", *MODEL, "--table", "x.txt"], "ends in .csv"),
        (["gone.xyz", *MODEL], "gone.xyz"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    message: str,
) -> None:
    assert run_command([command, *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_a_relaxation_out_of_steps_has_its_own_exit_code(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--steps", "1", "--fmax", "0.00001"]
    assert run_command(["relax", "shaken.xyz", *MODEL, *few]) == 1
    assert "did not converge; give more `--steps`" in capsys.readouterr().err
