"""The command `refine`: another radius, and what it refuses."""

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import alloop
from alloop.cli import main
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.two_heads import CheapHead, TwoHeadPotential
from tests.cli.test_commands import refused, said
from tests.conftest import write_toy
from tests.models.kinds import small


def chains(spacing: float, count: int, seed: int = 0) -> list[Atoms]:
    """Ten carbon atoms in a line."""
    rng = np.random.default_rng(seed)
    x = spacing * np.arange(10.0)[:, None] * [1.0, 0.0, 0.0]
    return [Atoms("C10", x + rng.normal(0, 0.02, x.shape)) for _ in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A painn of radius 4 Å, as if trained on a chain with 1.5 Å between atoms."""
    ase.io.write(tmp_path / "train.extxyz", chains(1.5, 40))
    ase.io.write(tmp_path / "grown.extxyz", chains(2.3, 6, seed=1))
    learned = LearnedPotential(small("painn", cutoff=4.0), {6: -1.0})
    domain = Domain.of(pack_frames([from_atoms(x) for x in chains(1.5, 1)]))
    file = tmp_path / "a.model"
    file.write_bytes(to_bytes(Generation(learned, None, None, {}, domain))[1])
    return file


def test_the_radius_follows_the_frames_and_md_runs(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    train, grown = tmp_path / "train.extxyz", tmp_path / "grown.extxyz"
    out = tmp_path / "b.model"
    auto = ("--radius", "auto", "--training", train, "--out", out)
    shown = said(capsys, "refine", model, grown, *auto)
    assert "the radius becomes" in shown
    refined = alloop.load(out)
    assert 4.6 < refined.potential.checkpoint().settings["network"]["radius"] < 6.9
    assert refined.threshold is not None
    assert refined.facts["refined"]["kind"] == "radius"
    frames = ["--temperature", "100", "--timestep", "0.1", "--quiet"]
    moved = tmp_path / "md.extxyz"
    said(capsys, "md", out, f"{grown}@0", "--out", moved, "--steps", "20", *frames)
    assert len(ase.io.read(moved, ":")) >= 2
    again = tmp_path / "c.model"
    kept = said(capsys, "refine", model, train, *auto[:-1], again)
    assert "the radius stays 4 Å" in kept
    assert "nothing written" in kept
    assert not again.exists()


def test_a_given_radius_needs_no_training_frames_but_surprise_does(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    out, grown = tmp_path / "b.model", tmp_path / "grown.extxyz"
    shown = said(capsys, "refine", model, grown, "--radius", "6", "--out", out)
    assert "cannot tell its surprise" in shown
    refined = alloop.load(out)
    assert refined.potential.checkpoint().settings["network"]["radius"] == 6.0
    assert refined.scorer is None


def test_every_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    grown, out = tmp_path / "grown.extxyz", ("--out", tmp_path / "b.model")
    run = ("refine", model, grown)
    assert "--radius auto" in refused(capsys, *run, *out)
    assert "up to 8 Å" in refused(capsys, *run, "--radius", "9", *out)
    assert "a radius in Å" in refused(capsys, *run, "--radius", "wide", *out)
    assert "--training FILE" in refused(capsys, *run, "--radius", "auto", *out)
    ending = refused(capsys, *run, "--radius", "6", "--out", tmp_path / "b.txt")
    assert "ends in" in ending


TOY = {"kind": "toy", "stiffness": 0.9, "stretch": 0.02}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a toy campaign with a network of two heads."""
    path = write_toy(
        tmp_path_factory.mktemp("heads"),
        potential={"kind": "painn", "channels": 4, "layers": 2, "radial": 4},
        training={"kind": "two-heads", "pretrain": 20, "finetune": 10, "every": 8},
        explore={"walkers": 2, "batch": 2, "steps": 20, "piece": 20, "stride": 5},
    )
    assert main(["run", str(path), "--quiet"]) == 0
    return path.with_name("toy.zarr")


@pytest.mark.slow
def test_a_campaigns_model_is_trained_at_test_time(
    capsys: pytest.CaptureFixture[str], campaign: Path, tmp_path: Path
) -> None:
    level, out = json.dumps(TOY), tmp_path / "b.model"
    hot = tmp_path / "hot.extxyz"
    frames = [molecule("H2O") for _ in range(4)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.15, seed=seed)
    ase.io.write(hot, frames)
    run = ("refine", campaign, hot, "--out", out, "--steps", "5", "--workers", "1")
    shown = said(capsys, *run, "--level", level, "--worse", "50")
    assert "cheap labels of the frames: force MAE" in shown
    refined = alloop.load(out)
    assert isinstance(refined.potential, TwoHeadPotential)
    assert refined.facts["refined"]["frames"] == 4
    assert refined.scorer is not None
    wrong = refused(capsys, *run, "--level", "{kind: toy, stiffness: 3}", "--force")
    assert "expected the level of the model's cheap head" in wrong


def test_a_model_file_with_two_heads_is_trained_at_test_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, out = tmp_path / "two.model", tmp_path / "b.model"
    plain = LearnedPotential(small("painn"), {1: -1.0, 8: -2.0})
    head = CheapHead.of(small("painn", seed=1), {1: -1.0, 8: -2.0})
    two = TwoHeadPotential(plain, head)
    file.write_bytes(to_bytes(Generation(two, None, None, {}))[1])
    frames = [molecule("H2O") for _ in range(6)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    hot, other, held = (tmp_path / f"{x}.extxyz" for x in ("hot", "other", "held"))
    ase.io.write(hot, frames[:3])
    ase.io.write(other, molecule("CH4"))
    for atoms in frames[3:]:
        forces = plain.predict(pack_frames([from_atoms(atoms)])).forces
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    ase.io.write(held, frames[3:])
    level = ("--level", json.dumps(TOY), "--steps", "3", "--workers", "1")
    run = ("refine", file, hot, "--out", out, *level)
    assert "--heldout FILE" in refused(capsys, *run)
    back = said(capsys, *run, "--heldout", held)
    assert "rolled back" in back
    assert "nothing written" in back
    training = ("--replay", held, "--expensive", held)
    shown = said(capsys, *run, "--heldout", held, "--worse", "1e9", *training)
    assert "100% of the step kept" in shown
    refined = alloop.load(out)
    assert isinstance(refined.potential, TwoHeadPotential)
    assert refined.facts["refined"]["frames"] == 3
    new = ("refine", file, other, "--out", tmp_path / "c.model", *level)
    assert "trained on, got C;" in refused(capsys, *new, "--heldout", held)


def test_an_ordinary_model_is_refined_and_the_frames_own_truth_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def now() -> Iterator[float]:
        yield from count(step=40.0)

    clock = now()
    monkeypatch.setattr("alloop.cli.job_displays.time.monotonic", lambda: next(clock))
    file, out = tmp_path / "one.model", tmp_path / "b.model"
    plain = LearnedPotential(small("painn"), {1: -1.0, 8: -2.0})
    file.write_bytes(to_bytes(Generation(plain, None, None, {}))[1])
    frames = [molecule("H2O") for _ in range(6)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    ase.io.write(tmp_path / "hot.extxyz", frames[:3])
    hartree = 27.211386245988
    for atoms in frames:
        said = plain.predict(pack_frames([from_atoms(atoms)]))
        values = {"energy": said.energies[0], "forces": said.forces}
        values = {key: x / hartree for key, x in values.items()}
        atoms.calc = SinglePointCalculator(atoms, **values)
    held, known = tmp_path / "held.extxyz", tmp_path / "known.extxyz"
    ase.io.write(held, frames[3:])
    ase.io.write(known, frames[2:])
    level = ("--level", json.dumps(TOY), "--steps", "3", "--workers", "1")
    run = ("refine", file, tmp_path / "hot.extxyz", "--out", out, *level)
    units = ("--energy-unit", "hartree", "--worse", "1e9")
    assert "--replay FILE" in refused(capsys, *run, "--heldout", held, *units)
    training = ("--replay", held, "--expensive", held)
    assert main([str(x) for x in (*run, "--heldout", held, *units, *training)]) == 0
    shown = capsys.readouterr()
    assert "no expensive label of the refined frames is known" in shown.err
    assert "a cheap head was added, fitted to 3 cheap labels" in shown.out
    assert "refine, fitting a head: 3 of 3, loss" in shown.out
    assert "refine, training on the cheap labels: 3 of 3" in shown.out
    (before,) = re.findall(r"held-out expensive labels: force MAE (\S+) ->", shown.out)
    assert float(before) < 0.01  # meV/Å: its own predictions, written in hartree
    assert isinstance(alloop.load(out).potential, TwoHeadPotential)
    again = (*run, "--heldout", known, *units, *training, "--force")
    assert main([str(x) for x in again]) == 0
    shown = capsys.readouterr()
    assert "no expensive label of the refined frames" not in shown.err
    assert "the frames themselves, 1 expensive label: force MAE" in shown.out
    wrong = refused(capsys, *run, "--heldout", held, "--energy-unit", "cal", "--force")
    assert "energy_unit" in wrong
