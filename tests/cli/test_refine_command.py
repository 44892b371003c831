"""The command `refine`: another radius, and what it refuses."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

import alloop
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.potentials.learned import LearnedPotential
from tests.cli.test_commands import refused, said
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
