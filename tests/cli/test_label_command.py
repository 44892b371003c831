"""`alloop label`: frames in, labels out, whatever happens in between."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import psutil
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from alloop.cli import main
from alloop.core.atoms import from_atoms
from alloop.core.records import Label
from alloop.core.units import HARTREE
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.labels.toy import toy_level
from alloop.store.cache import LabelCache
from tests.labels.label_faults import faulty_level

WATER = np.array([[0.0, 0.0, 0.0], [0.0, 0.757, 0.587], [0.0, -0.757, 0.587]])
TOY = "{kind: toy}"
PICKY = "{kind: toy, fail_above: 2.5}"
NAN = faulty_level("nan")
NO_NUMBER = json.dumps({"kind": NAN.kind, "settings": dict(NAN.settings)})


def waters(count: int) -> list[Atoms]:
    """Frames of water that know which they are."""
    noise = np.random.default_rng(5).normal(0, 0.03, (count, 3, 3))
    return [
        Atoms("OHH", WATER + moved, info={"step": i}) for i, moved in enumerate(noise)
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file of five frames: one far apart, one twice."""
    monkeypatch.chdir(tmp_path)
    frames = waters(4)
    frames[2].positions *= 3.0
    ase.io.write("in.xyz", [*frames, frames[1]])
    return tmp_path


def label(*arguments: str) -> int:
    return main(["label", *arguments, "--quiet", "--workers", "1"])


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def kept(folder: Path) -> dict[str, int]:
    """Finished labels by name, and when they were written."""
    found = folder.glob("*/*/*") if folder.is_dir() else ()
    return {path.name: path.stat().st_mtime_ns for path in found}


def content(path: Path) -> list[tuple[object, ...]]:
    """All that a file says, but for what labels cost."""
    rows = []
    for atoms in ase.io.read(path, index=":"):
        info = {k: v for k, v in atoms.info.items() if k != "cpu_seconds"}
        forces, energy = atoms.get_forces(), atoms.get_potential_energy()
        rows.append((str(info), energy, forces.tobytes(), atoms.positions.tobytes()))
    return rows


def test_labels_keep_the_frames_order_and_what_they_came_with(here: Path) -> None:
    frames = ase.io.read("in.xyz", index=":")
    old = {"energy": -1.0, "forces": np.ones((3, 3)), "dipole": np.zeros(3)}
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, **old)
        atoms.info |= {"total_charge": 1, "spin": 1, "REF_energy": 7.0}
        atoms.set_array("kind", np.array([2, 1, 1]))
    ase.io.write("rich.extxyz", frames)
    assert label("rich.extxyz@1:", "in.xyz@0", "--level", PICKY, "--out", "o.xyz") == 0
    found = ase.io.read("o.xyz", index=":")
    assert [atoms.info["step"] for atoms in found] == [1, 3, 1, 0]
    assert [atoms.info["charge"] for atoms in found] == [1, 1, 1, 0]
    assert [atoms.info["total_spin"] for atoms in found] == [2, 2, 2, 1]
    first = found[0]
    alone = DirectLabeller(toy_level(fail_above=2.5)).label(from_atoms(first))
    assert isinstance(alone, Label)
    assert first.info["REF_energy"] == first.get_potential_energy() == alone.energy
    np.testing.assert_allclose(first.arrays["REF_forces"], alone.forces, atol=1e-8)
    np.testing.assert_array_equal(first.get_forces(), first.arrays["REF_forces"])
    assert first.info["frame"] == f"frame/{alone.frame}"
    assert first.info["level"] == f"level/{alone.level}"
    assert first.info["input_REF_energy"] == 7.0
    assert first.info["input_energy"] == -1.0
    np.testing.assert_array_equal(first.arrays["input_forces"], np.ones((3, 3)))
    np.testing.assert_array_equal(first.arrays["kind"], [2, 1, 1])


def test_a_frame_without_a_label_is_listed_and_the_exit_code_is_0(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label("in.xyz", "--level", PICKY, "--out", "out.xyz") == 0
    assert [a.info["step"] for a in ase.io.read("out.xyz", index=":")] == [0, 1, 3, 1]
    (row,) = table(here / "out.xyz.failures.csv")
    assert (row["index"], row["reason"]) == ("2", "NOT_CONVERGED")
    assert "limit 2.5" in row["message"]
    said = capsys.readouterr().out
    assert "4 labels" in said
    assert "not converged" in said
    assert "out.xyz.failures.csv" in said
    assert not (here / "out.xyz.labels").exists()


def test_the_same_request_is_done_and_another_one_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label("in.xyz", "--level", PICKY, "--out", "out.xyz") == 0
    before = (here / "out.xyz").stat().st_mtime_ns
    assert label("in.xyz", "--level", PICKY, "--out", "out.xyz") == 0
    assert "out.xyz exists already: 4 labels" in capsys.readouterr().out
    assert label("in.xyz@:3", "--level", PICKY, "--out", "out.xyz") == 2
    assert "holds labels of other frames" in capsys.readouterr().err
    assert label("in.xyz", "--level", TOY, "--out", "out.xyz") == 2
    assert "holds no labels at toy" in capsys.readouterr().err
    assert label("in.xyz", "--level", TOY, "--out", "in.xyz") == 2
    assert (here / "out.xyz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.xyz", "--level", TOY], "none.xyz is not there"),
        (["bad.xyz", "--level", TOY], "bad.xyz cannot be read"),
        (["in.xyz@x", "--level", TOY], "an index such as 5, 0:10"),
        (["in.xyz", "--level", "hf/sto-4g"], "did you mean 'sto-3g'"),
        (["in.xyz", "--level", "hf sto-3g"], "hf sto-3g"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    (here / "bad.xyz").write_text("two\natoms\n")
    before = sorted(here.iterdir())
    assert label(*arguments, "--out", "out.xyz") == 2
    assert sentence in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_a_database_holds_bits_keys_and_the_rest(here: Path) -> None:
    frames = ase.io.read("in.xyz", index=":2")
    with connect("in.db") as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"total_charge": 0, "note": "hot"})
    assert label("in.db@:2", "--level", "hf/sto-3g", "--out", "out.db") == 0
    assert label("in.db@:2", "--level", "hf/sto-3g", "--out", "out.db") == 0
    for row, atoms in zip(connect("out.db").select(), frames, strict=True):
        alone = DirectLabeller(level_from_name("hf/sto-3g")).label(from_atoms(atoms))
        assert isinstance(alone, Label)
        assert row.REF_energy == row.energy == alone.energy
        np.testing.assert_array_equal(row.data["REF_forces"], alone.forces)
        np.testing.assert_array_equal(row.forces, alone.forces)
        assert (row.level_title, row.rung) == ("HF/STO-3G", "default")
        assert row.data["note"] == "hot"
        assert row.data["details"]["cycles"] == alone.details["cycles"]


def test_limits_are_tried_again_on_request(here: Path) -> None:
    level = toy_level(burn=0.6)
    first, _ = ase.io.read("in.xyz", index=":2")
    known = DirectLabeller(level).label(from_atoms(first))
    LabelCache(here / "out.xyz.labels").put(known)
    slow = ["in.xyz@:2", "--level", "{kind: toy, burn: 0.6}", "--out", "out.xyz"]
    assert label(*slow, "--time-limit", "0.2") == 0
    assert label(*slow, "--time-limit", "0.2") == 0  # done, and not tried again
    assert len(ase.io.read("out.xyz", index=":")) == 1
    (row,) = table(here / "out.xyz.failures.csv")
    assert (row["index"], row["reason"]) == ("1", "TIMEOUT")
    (
        here / "out.xyz.failures.csv"
    ).unlink()  # as a kill between the two files leaves it
    assert label(*slow) == 2
    assert label(*slow, "--retry") == 0
    assert len(ase.io.read("out.xyz", index=":")) == 2
    assert sorted(x.name for x in here.iterdir()) == ["in.xyz", "out.xyz"]


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "alloop", "label", *arguments]
    return subprocess.Popen(
        *(command,),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(folder: Path, count: int) -> None:
    """Wait until so many labels are kept."""
    end = time.monotonic() + 60
    while len(kept(folder)) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert len(kept(folder)) >= count


def test_a_killed_command_goes_on_and_makes_no_label_twice(here: Path) -> None:
    ase.io.write("many.xyz", waters(10))
    level = ["--level", "{kind: toy, burn: 0.15}"]
    request = ["many.xyz", *level, "--out", "out.xyz"]
    process = started(here, *request, "--workers", "2")
    until(here / "out.xyz.labels", 3)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [x for x in alive if x.status() != psutil.STATUS_ZOMBIE] == []
    early = kept(here / "out.xyz.labels")
    assert 3 <= len(early) < 10
    assert not (here / "out.xyz").exists()
    process = started(here, *request, "--workers", "1")
    until(here / "out.xyz.labels", len(early) + 2)
    later = kept(here / "out.xyz.labels")
    assert {name: later[name] for name in early} == early  # not written again
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert f"10 labels at toy 1/0 in out.xyz; {10 - len(early)} computed in" in out
    assert label("many.xyz", *level, "--out", "undisturbed.xyz") == 0
    assert content(here / "out.xyz") == content(here / "undisturbed.xyz")
    assert not (here / "out.xyz.labels").exists()


def test_ctrl_c_ends_a_command_within_a_label_and_says_how_to_go_on(
    here: Path,
) -> None:
    request = ["in.xyz@:2", "--level", "{kind: toy, burn: 600}", "--out", "out.xyz"]
    process = started(here, *request)
    end = time.monotonic() + 60
    while len(psutil.Process(process.pid).children(recursive=True)) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=20)
    assert process.returncode == 3, err
    assert "stopped; continue with: alloop label in.xyz@:2 --level '{" in out
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [x for x in alive if x.status() != psutil.STATUS_ZOMBIE] == []


def test_two_commands_at_once_share_a_cache(here: Path) -> None:
    ase.io.write("many.xyz", waters(8))
    level = ["--level", "{kind: toy, burn: 0.1}", "--cache", "labels"]
    level += ["--workers", "1"]
    both = [
        started(here, "many.xyz", *level, "--out", f"{name}.xyz") for name in ("a", "b")
    ]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), out
    assert len(kept(here / "labels")) == 8
    assert content(here / "a.xyz") == content(here / "b.xyz")
    assert (here / "a.xyz").read_text() == (here / "b.xyz").read_text()  # costs too


def test_free_atoms_are_references(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atoms", "O", "H", "H", "--level", "hf/sto-3g"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert list(found) == ["H", "O"]
    assert found["H"] == pytest.approx(-0.46658 * HARTREE, abs=1e-3)  # known
    assert found["O"] == pytest.approx(-73.80415 * HARTREE, abs=1e-2)  # the triplet's


@pytest.mark.parametrize(
    ("elements", "level", "text"),
    [
        (["H", "Q", "X"], "hf/sto-3g", "got Q, X"),
        (["He"], NO_NUMBER, "no label for the atom He"),
    ],
)
def test_what_is_no_atom_or_has_no_label_is_told(
    elements: list[str], level: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["atoms", *elements, "--level", level]) == 2
    assert text in capsys.readouterr().err


def run_label(*arguments: str) -> int:
    """As a user does, whose limits are those of real child processes."""
    return main(["label", *arguments, "--workers", "1"])


def test_a_limit_below_what_a_child_needs_is_a_mistake_and_no_interruption(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the same again would end alike
        code = run_label(
            "in.xyz", "--level", "hf/sto-3g", "--out", "o.xyz", "--memory-limit", "8"
        )
        assert code == 2
        message = capsys.readouterr().err
        assert "MB of memory, the limit is 8 MB" in message
        assert "which is in MB" in message
    (here / "c.yaml").write_text(
        "name: x\nstart: [{molecule: H2O}]\nlevels: {expensive: {kind: toy}}\n"
        "budget: {expensive: 20}\nlimits: {label_memory: 8}\n"
    )
    assert main(["check", "c.yaml"]) == 2
    assert "MB of memory, the limit is 8 MB" in capsys.readouterr().err


def test_frames_that_all_fail_are_a_mistake_with_its_mend(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ion = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"spin": 2})
    ase.io.write("ion.xyz", [ion])
    where = ("ion.xyz", "--level", "hf/sto-3g", "--out", "o.xyz")
    assert run_label(*where) == 2
    said = capsys.readouterr()
    assert "9 electrons need an odd spin (2S), got 2 (a multiplicity of 2" in said.out
    assert "charge 0 (by default), multiplicity 3 (spin)" in said.out
    assert "expected a label, 1 frame got none" in said.err
    assert not (here / "o.xyz").exists()
    assert run_label(*where, "--multiplicity", "2", "--spin", "1") == 2
    assert "--spin (2S) or --multiplicity (2S + 1), got both" in capsys.readouterr().err
    assert run_label(*where, "--multiplicity", "2", "--force") == 0
    assert "multiplicity 2 (as given)" in capsys.readouterr().out
    assert ase.io.read("o.xyz").info["spin"] == 1


def test_a_campaign_takes_a_multiplicity_in_place_of_a_spin(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "name: x\nstart: [{molecule: H2O, multiplicity: 3}, "
        "{file: in.xyz, index: '0', charge: 1, multiplicity: 2}]\n"
        "levels: {expensive: {kind: toy}}\nbudget: {expensive: 30}\n"
    )
    (here / "c.yaml").write_text(text)
    assert main(["check", "c.yaml"]) == 0
    said = capsys.readouterr().out
    assert "(charge 0, multiplicity 3)" in said
    assert "(charge 1, multiplicity 2)" in said
    (here / "c.yaml").write_text(
        text.replace("multiplicity: 2", "multiplicity: 2, spin: 1")
    )
    assert main(["check", "c.yaml"]) == 2
    assert "got both; leave one out" in capsys.readouterr().err
