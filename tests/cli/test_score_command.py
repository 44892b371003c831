"""The command `score`: what a model says of frames that the user brings."""

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import alloop
from alloop import Campaign
from alloop.cli import main
from alloop.core.atoms import from_atoms
from alloop.files.frames import GivenStructure
from alloop.generation import Generation, to_bytes
from alloop.jobs import score_job
from alloop.jobs.score_job import FrameScores
from tests.cli.test_commands import refused, said
from tests.conftest import write_toy

CHANGES = {
    "validation": {
        "frames": 18,
        "temperature": 400,
        "each": 6,
        "spacing": 5,
        "examination": 0,
    }
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a toy campaign that has ended, with enough validation frames."""
    path = write_toy(tmp_path_factory.mktemp("done"), **CHANGES)
    assert main(["run", str(path), "--quiet"]) == 0
    return path.with_name("toy.zarr")


@pytest.fixture
def frames(done: Path, tmp_path: Path) -> Path:
    """Nine labelled frames of water, the last far from all others."""
    found = Campaign.from_store(done).dataset("expensive", "validation")[:8]
    for atoms in found:
        atoms.info = {"note": "mine"}
        atoms.calc = SinglePointCalculator(atoms, energy=1.5)
    strange = found[0].copy()
    strange.positions[1] *= 1.6
    ase.io.write(tmp_path / "frames.extxyz", [*found, strange])
    return tmp_path / "frames.extxyz"


def test_scores_are_those_of_the_calculator_with_a_verdict(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path
) -> None:
    lines = said(capsys, "score", frames, "--store", done, "--json").splitlines()
    rows = [json.loads(line) for line in lines]
    model = Campaign.from_store(done).model()
    assert model.threshold is not None
    for number, (row, atoms) in enumerate(
        zip(rows, ase.io.read(frames, ":"), strict=True)
    ):
        atoms.calc = model.calculator()
        energy = atoms.get_potential_energy()
        results = atoms.calc.results
        assert (row["frame"], row["formula"]) == (number, "H2O")
        assert row["energy"] == pytest.approx(energy)
        assert row["surprise"] == pytest.approx(results["surprise"])
        limit = results["error_limit"]
        assert row["error_limit"] == (pytest.approx(limit) if limit < np.inf else None)
        over = results["surprise"] > model.threshold
        assert row["verdict"] == ("flagged" if over else "trusted")
    assert (rows[-1]["verdict"], rows[-1]["error_limit"]) == ("flagged", None)


def test_a_frame_whose_energy_is_no_number_is_flagged_without_a_limit(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, predict = Campaign.from_store(done).model(), Generation.predict

    def broken(self, batch, *, descriptors=False):
        said = predict(self, batch, descriptors=descriptors)
        known = np.where(np.arange(len(batch)) == 1, np.nan, said.energies)
        return replace(said, energies=known)

    monkeypatch.setattr(Generation, "predict", broken)
    water = Campaign.from_store(done).dataset("expensive", "validation")[0]
    given = [GivenStructure(water, from_atoms(water))] * 2
    usual, none = FrameScores(model, model.domain).score(given)
    assert (usual.verdict, none.verdict) == ("trusted", "flagged")
    assert np.isnan(none.energy)
    assert usual.error_limit < none.error_limit == np.inf
    assert none.facts()["energy"] is None


def test_a_frame_is_flagged_where_it_may_be_off_by_more_than_asked(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path
) -> None:
    lines = said(capsys, "score", frames, "--store", done, "--json").splitlines()
    limits = [json.loads(line)["error_limit"] or np.inf for line in lines]
    between = float(np.mean(sorted(limits)[3:5]))
    shown = said(capsys, "score", frames, "--store", done, "--error", between)
    assert "9 frames: 4 trusted, 5 flagged, 0 outside" in shown
    assert "90% of frames like the 18" in shown
    assert "the promise is not for flagged or outside frames" in shown
    only = said(capsys, "score", frames, "--store", done, "--quiet")
    assert only.count("\n") == 1


def test_scored_frames_are_written_with_what_they_had(
    capsys: pytest.CaptureFixture[str],
    done: Path,
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(score_job, "_ATOMS", 6)  # two frames at a time
    out = tmp_path / "scored.extxyz"
    said(capsys, "score", frames, "--store", done, "--out", out)
    given, scored = ase.io.read(frames, ":"), ase.io.read(out, ":")
    for before, after in zip(given, scored, strict=True):
        assert after.positions == pytest.approx(before.positions)
        assert (after.calc is None) == (before.calc is None)
        assert after.info["note"] == "mine"
        assert after.info["error_limit"] > 0.0
        assert {"surprise", "model_energy", "verdict"} <= {*after.info}
    assert scored[0].get_potential_energy() == 1.5
    assert "--force" in refused(capsys, "score", frames, "--store", done, "--out", out)
    said(capsys, "score", f"{frames}@0", "--store", done, "--out", out, "--force")
    assert len(ase.io.read(out, ":")) == 1


@pytest.mark.parametrize("domain", ["known", "unknown"])
def test_what_the_model_was_not_trained_on_is_outside_and_refuses_no_other_frame(
    capsys: pytest.CaptureFixture[str], done: Path, tmp_path: Path, domain: str
) -> None:
    model, file = Campaign.from_store(done).model(), tmp_path / "other.extxyz"
    if domain == "unknown":  # as in files of an older alloop
        model = replace_fields(model, domain=None)
    (tmp_path / "water.model").write_bytes(to_bytes(model)[1])
    charged = molecule("H2O")
    charged.info["charge"] = 1
    ase.io.write(file, [molecule(x) for x in ("CH4", "H2O", "H2O2", "NaCl", "H2O")])
    ase.io.write(file, charged, append=True)
    asked = ("score", file, "--model", tmp_path / "water.model")
    rows = [json.loads(row) for row in said(capsys, *asked, "--json").splitlines()]
    outside = [row["verdict"] == "outside" for row in rows]
    if domain == "known":
        assert outside == [True, False, True, True, False, True]
    else:
        assert outside == [True, False, False, True, False, False]
    water = molecule("H2O")
    (alone,) = FrameScores(model).score([GivenStructure(water, from_atoms(water))])
    for row in (rows[1], rows[4]):
        assert row["energy"] == pytest.approx(alone.energy)
        assert row["verdict"] == alone.verdict
    for row in (rows[0], rows[3]):  # of elements that the model does not know
        assert [row[x] for x in ("energy", "surprise", "error_limit")] == [None] * 3
    assert "outside" in said(capsys, *asked)


def test_every_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path, tmp_path: Path
) -> None:
    store = ("--store", done)
    empty, text = tmp_path / "empty.extxyz", tmp_path / "words.txt"
    empty.write_text("")
    text.write_text("no frames\n")
    assert "is not there" in refused(capsys, "score", "none.xyz", *store)
    assert "empty.extxyz" in refused(capsys, "score", empty, *store)
    assert "words.txt" in refused(capsys, "score", text, *store)
    assert "--store STORE" in refused(capsys, "score", frames)
    both = refused(capsys, "score", frames, *store, "--model", "x.model")
    assert "leave one out" in both
    missing = refused(capsys, "score", frames, "--model", tmp_path / "x.model")
    assert "does not exist" in missing
    model = Campaign.from_store(done).model()
    bare = tmp_path / "bare.model"
    for changes, args, expected in (
        ({"scorer": None}, (), "no scorer"),
        ({"threshold": None}, (), "no threshold"),
        ({"error_limits": None}, ("--error", "0.1"), "limits of its errors"),
    ):
        bare.write_bytes(to_bytes(replace_fields(model, **changes))[1])
        assert expected in refused(capsys, "score", frames, "--model", bare, *args)


def replace_fields(model: Generation, **changes: object) -> Generation:
    from dataclasses import replace

    return replace(model, **changes)


def test_a_model_file_keeps_its_limits_and_older_ones_have_none(
    capsys: pytest.CaptureFixture[str], done: Path, frames: Path, tmp_path: Path
) -> None:
    model = Campaign.from_store(done).model()
    file = tmp_path / "a.model"
    file.write_bytes(to_bytes(model)[1])
    assert alloop.load(file).error_limits == model.error_limits
    assert model.error_limits is not None
    file.write_bytes(to_bytes(replace_fields(model, error_limits=None))[1])
    assert alloop.load(file).error_limits is None
    shown = said(capsys, "score", frames, "--model", file)
    assert "the model has no limits of its errors" in shown


@pytest.mark.parametrize(
    ("header", "first", "verdict"),
    [
        ('pbc="T T T"', "O 0 0 0.1", "outside"),
        ('pbc="T T T" Lattice="9 0 0 0 9 0 9 9 0"', "O 0 0 0.1", "outside"),
        ("", "O 0 nan 0.1", "flagged"),
        ("", "O 0 1e300 0.1", "flagged"),
    ],
)
def test_coordinates_that_nothing_can_use_get_a_verdict_and_no_dynamics(
    capsys: pytest.CaptureFixture[str],
    done: Path,
    tmp_path: Path,
    header: str,
    first: str,
    verdict: str,
) -> None:
    file, rest = tmp_path / "x.extxyz", "H 0 0.8 -0.5\nH 0 -0.8 -0.5\n"
    columns = "Properties=species:S:1:pos:R:3"
    frame = f"3\n{columns} {header}\n{first}\n{rest}"
    sound = f"3\n{columns}\nO 0 0 0.1\n{rest}"
    file.write_text(frame + sound)
    lines = said(capsys, "score", file, "--store", done, "--json").splitlines()
    bad, good = (json.loads(line) for line in lines)
    assert (bad["verdict"], bad["energy"], bad["error_limit"]) == (verdict, None, None)
    assert good["energy"] is not None
    out = ("--steps", "2", "--out", tmp_path / "w.traj")
    for command in (("md", done, file, *out), ("diagnose", done, file)):
        assert "frame 0 of " in refused(capsys, *command)
    assert not (tmp_path / "w.traj").exists()
