"""The command `diagnose`: frames against the training set of a model."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from alloop import Campaign
from alloop.cli import main
from tests.cli.test_commands import refused, said
from tests.conftest import write_toy


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a toy campaign that has ended."""
    path = write_toy(tmp_path_factory.mktemp("done"))
    assert main(["run", str(path), "--quiet"]) == 0
    return path.with_name("toy.zarr")


@pytest.fixture
def frames(done: Path, tmp_path: Path) -> Path:
    """Four training frames with their forces, then a broken bond and a new element."""
    found = Campaign.from_store(done).dataset("expensive")[:4]
    broken, other = found[0].copy(), molecule("SH2")
    broken.positions[1] = broken.positions[0] + 4.0 * (
        broken.positions[1] - broken.positions[0]
    )
    del broken.arrays["REF_forces"]
    ase.io.write(tmp_path / "frames.extxyz", [*found, broken, other])
    return tmp_path / "frames.extxyz"


def test_frames_are_out_by_the_shift_that_was_made(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path
) -> None:
    lines = said(capsys, "diagnose", done, frames, "--radius", "1.6", "--json")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["formula"] for row in rows] == ["H2O"] * 5 + ["H2S"]
    assert not any(row["connectivity"]["out"] for row in rows[:4])
    assert rows[4]["connectivity"]["out"]
    assert rows[4]["connectivity"]["from_mean"] > 0.1
    assert rows[5]["features"]["out"]
    assert rows[5]["forces"]["value"] is None
    assert rows[5]["features"]["deviations"] > 1000


@pytest.mark.usefixtures("figures")
def test_the_page_and_the_table_say_the_same(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path, tmp_path: Path
) -> None:
    shown = said(capsys, "diagnose", done, frames, "--radius", "1.6")
    page = (tmp_path / "frames.shifts.html").read_text()
    (sentence,) = (line for line in shown.splitlines() if " of 6 frames out" in line)
    assert sentence in page
    assert "no training frame has S" in page
    assert page.count("<svg role") >= 3
    assert "forces of the model" in shown
    out = tmp_path / "other.html"
    labelled = said(capsys, "diagnose", done, f"{frames}@:4", "--out", out)
    assert "forces of the labels" in labelled
    assert "--force" in refused(capsys, "diagnose", done, frames, "--out", out)


def test_a_model_file_needs_its_training_frames(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path, tmp_path: Path
) -> None:
    campaign = Campaign.from_store(done)
    file, known = tmp_path / "a.model", tmp_path / "known.extxyz"
    campaign.export_model(file)
    assert "--training FILE" in refused(capsys, "diagnose", file, frames)
    ase.io.write(known, campaign.dataset("both"))
    given = said(capsys, "diagnose", file, frames, "--training", known, "--quiet")
    assert "page:" in given
    ase.io.write(known, campaign.dataset("both")[:3])
    few = refused(capsys, "diagnose", file, frames, "--training", known)
    assert "10 training frames or more" in few
    bad = campaign.dataset("expensive")
    bad[0].arrays["REF_forces"] = np.full((3, 3), np.nan)
    ase.io.write(known, bad)
    wrong = refused(capsys, "diagnose", file, known, "--training", known)
    assert "REF_forces" in wrong


def test_a_campaigns_report_shows_shifts_of_its_test_frames_and_walkers(
    capsys: pytest.CaptureFixture[str], done: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    said(capsys, "report", done, "--out", out)
    page = out.read_text()
    section = page[page.index('id="shifts"') :]
    assert "validation set" in section
    assert "MD of H2O" in section
