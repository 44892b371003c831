"""`alloop path`, on the model of a toy campaign of ammonia."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from alloop import Campaign
from alloop.cli.app import run_command
from alloop.cli.path_command import path
from alloop.core.atoms import from_atoms
from alloop.core.records import MinimumPath
from alloop.jobs.path_job import energy_limits
from alloop.loop.state import ExplorationState
from alloop.md.reaction_path import PathSettings
from tests.conftest import write_toy


def ammonia(height: float) -> Atoms:
    """Ammonia with its nitrogen so many Å above the hydrogens."""
    atoms = molecule("NH3")
    atoms.positions -= atoms.positions[1:].mean(axis=0)
    out = atoms.positions[1:] / np.linalg.norm(atoms.positions[1:], axis=1)[:, None]
    atoms.positions[1:] = out * np.sqrt(1.02**2 - height**2)
    atoms.positions[0] = [0.0, 0.0, height]
    return atoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a campaign that has run, and two mirror images."""
    folder = tmp_path_factory.mktemp("path")
    write(folder / "start.xyz", [ammonia(x) for x in (0.38, 0.0, -0.38)])
    file = write_toy(folder, start=[{"file": "start.xyz", "conformers": True}])
    assert Campaign.from_yaml(file).run().exit_code == 0
    write(folder / "a.xyz", ammonia(0.38))
    write(folder / "b.xyz", ammonia(-0.38))
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


USUAL = ["path", "a.xyz", "b.xyz", "--store", "toy.zarr", "--no-relax", "--images", "3"]


def test_the_path_is_written_drawn_and_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", "band.extxyz", "--picture", "band.svg", "--force"]
    assert run_command([*USUAL, *files, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["converged"]
    images = facts["images"]
    assert [x["number"] for x in images] == [0, 1, 2, 3, 4]
    assert images[-1]["energy"] == pytest.approx(0.0, abs=0.02)  # mirror images
    lengths = [x["length"] for x in images]
    assert lengths == sorted(lengths)
    band = read(here / "band.extxyz", ":")
    assert [x.info["image"] for x in band] == [0, 1, 2, 3, 4]
    assert [x.info["path_energy"] for x in band] == pytest.approx(
        [x["energy"] for x in images]
    )
    calculator = Campaign.from_store(here / "toy.zarr").calculator()
    energies = []
    for atoms in band:
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    assert np.array(energies) - energies[0] == pytest.approx(
        [x["energy"] for x in images], abs=1e-6
    )
    assert "<svg" in (here / "band.svg").read_text()
    assert run_command(USUAL) == 0
    told = capsys.readouterr().out
    assert "image   path, Å  energy, eV" in told
    assert "barrier" in told


def test_a_level_checks_the_ends_and_the_top(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*USUAL, "--level", "{kind: toy}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    checks = [x["reference"] for x in facts["images"]]
    assert checks[0] == 0.0
    assert checks[-1] == pytest.approx(0.0, abs=1e-6)
    top = max(range(5), key=lambda i: facts["images"][i]["energy"])
    assert [i for i, x in enumerate(checks) if x is not None] == sorted({0, top, 4})


def test_a_search_that_does_not_converge_has_its_own_exit_code(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*USUAL, "--steps", "1", "--fmax", "0.0001"]) == 1
    assert "warning: not converged after 1 step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.xyz", "a.xyz", "--store", "toy.zarr"], "one and the same"),
        (["a.xyz", "b.xyz"], "give `--store STORE` or `--model FILE`"),
        (["start.xyz", "b.xyz", "--store", "toy.zarr"], "as in `start.xyz@0`"),
        (["a.xyz", "gone.xyz", "--store", "toy.zarr"], "gone.xyz"),
        (["a.xyz", "water.xyz", "--store", "toy.zarr"], "water|H2O"),
        ([*USUAL[1:], "--picture", "band.bmp"], "ends in .svg, .png, .pdf"),
        ([*USUAL[1:], "--out", "a.xyz"], "add --force to replace it"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    write(here / "water.xyz", molecule("H2O"))
    assert run_command(["path", *arguments]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert any(part in told for part in message.split("|"))


def test_the_limit_of_an_energy_is_the_most_that_force_errors_can_do() -> None:
    rng = np.random.default_rng(3)
    steps, atoms = 2000, 4
    moves = rng.normal(size=(1, atoms, 3)) * np.ones((steps, 1, 1)) / steps
    errors = rng.normal(size=(steps, atoms, 3))
    errors *= 0.05 / np.linalg.norm(errors, axis=2, keepdims=True)
    along = moves * 0.05 / np.linalg.norm(moves, axis=2, keepdims=True)
    lengths = np.arange(steps + 1) * np.linalg.norm(moves[0], axis=1).sum()
    limits = energy_limits(lengths, np.full(steps + 1, 0.05))
    random = np.cumsum((errors * moves).sum(axis=(1, 2)))
    worst = np.cumsum((along * moves).sum(axis=(1, 2)))
    assert (np.abs(random) <= limits[1:]).all()
    assert worst == pytest.approx(limits[1:])  # no smaller limit would hold
    assert np.isinf(
        energy_limits(lengths[:4], np.array([0.1, 0.1, np.inf, 0.1]))[2:]
    ).all()


def test_the_options_have_the_defaults_of_the_settings() -> None:
    usual = {x.name: x.default for x in signature(path).parameters.values()}
    settings = PathSettings()
    shared = {name: getattr(settings, name) for name in ("images", "fmax", "steps")}
    assert {name: usual[name] for name in shared} == shared
    assert usual["no_relax"] is not settings.relax
    assert usual["match"] is settings.match


def test_paths_of_a_campaign_are_told_and_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Minima and saddle points, with their energies and limits."""
    assert run_command(["paths", "toy.zarr"]) == 2
    assert "explore: {paths: {}}" in capsys.readouterr().err
    pyramid, flat, mirrored = (from_atoms(ammonia(x)) for x in (0.38, 0.0, -0.38))
    record = MinimumPath(0, pyramid, flat, "", energy=0.0, surprising=0, error=0.001)
    paths = (record, replace(record, error=None), replace(record, minimum=mirrored))
    monkeypatch.setattr(ExplorationState, "all_paths", property(lambda _: paths))
    usual = ["paths", "toy.zarr", "--images", "3", "--quiet", "--refine"]
    assert run_command([*usual, "--out", "points.extxyz"]) == 0
    told = capsys.readouterr()
    assert "path 0, done" in told.out
    assert "path 1, open" in told.out
    assert "path 2: expected two structures" in told.err
    assert run_command([*usual, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [x["done"] for x in facts] == [True, False]
    points = read("points.extxyz", ":")
    assert {x.info["path"] for x in points} == {0, 1}
    assert {x.info["point"] for x in points} >= {"minimum"}
    top = max(x["energy"] for x in facts[0]["images"])
    assert max(x.info["path_energy"] for x in points) == pytest.approx(top)
