"""Terminals, pipes and files as they come: no command ends in a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alloop.cli import main
from alloop.cli.exits import DAMAGED, DONE, MISTAKE
from tests.conftest import write_toy

Capture = pytest.CaptureFixture[str]
COMMAND = (sys.executable, "-m", "alloop")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a toy campaign that has ended, in a folder with a blank and an å."""
    path = write_toy(tmp_path_factory.mktemp("done") / "a blank å")
    assert main(["run", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def store(done: Path, tmp_path: Path) -> Path:
    """A copy of its store."""
    return Path(shutil.copytree(done.with_name("toy.zarr"), tmp_path / "toy.zarr"))


def test_an_ascii_terminal_gets_ascii(done: Path) -> None:
    poor = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    ended = subprocess.run(
        [*COMMAND, "status", str(done)],
        env=os.environ | poor,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "meV/A in forces (MAE)" in ended.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("redirected", "code"), [("| head -1", 0), (">&-", 0), ("> /dev/full", 2)]
)
def test_output_that_nobody_takes_is_no_traceback(
    done: Path, redirected: str, code: int
) -> None:
    line = f'"{sys.executable}" -m alloop log "{done}" {redirected}'
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


def test_json_is_json_everywhere(done: Path, capsys: Capture) -> None:
    def told(*arguments: str) -> object:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert told("status", str(done))["running"] is None
    assert told("check", str(done))["ok"] is True
    assert told("doctor", str(done))["findings"] == []
    priced = told("plan", str(done))["labels"]
    assert priced[0]["cpu_seconds"]["likely"] > 0
    capsys.readouterr()
    assert main(["log", str(done), "--last", "2", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines][-1]
    assert lines[1]["record"] == lines[0]["record"] + 1
    assert main(["log", str(done)]) == 0
    text = capsys.readouterr().out
    frame = text.split("label of frame ")[1][:8]
    story = told("why", str(done), frame)
    assert story["frame"].startswith(frame)
    assert story["labels"][0]["energy"] is not None


def test_mistakes_are_json_too(done: Path, capsys: Capture) -> None:
    bad = done.with_name("bad.yaml")
    bad.write_text(done.read_text() + "timestep: 1\n")
    assert main(["check", str(bad), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [each["key"] for each in told["mistakes"]] == ["timestep"]


def test_a_log_is_followed_until_its_reader_goes(store: Path, capsys: Capture) -> None:
    from alloop.history.reader import read_history

    frame = next(iter(read_history(store).label_index.frames))
    with subprocess.Popen(
        [*COMMAND, "log", str(store), "--follow", "--last", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        last = int(follower.stdout.readline().split()[0])
        assert main(["exclude", str(store), frame, "--reason", "odd"]) == 0
        line = follower.stdout.readline()
        assert int(line.split()[0]) == last + 1
        assert "excluded by hand: odd" in line
        follower.stdout.close()
        assert main(["exclude", str(store), frame, "--undo"]) == 0
        assert follower.wait(timeout=20) == 0
        assert follower.stderr is not None
        assert follower.stderr.read() == ""


@pytest.mark.parametrize("lost", ["name", "config", "levels", "seed"])
@pytest.mark.parametrize("spoilt", [None, 5])
def test_a_store_that_lost_an_attribute_is_read_or_refused_in_a_sentence(
    store: Path, lost: str, spoilt: object, capsys: Capture
) -> None:
    node = json.loads((store / "zarr.json").read_text())
    node["attributes"].pop(lost)
    if spoilt is not None:
        node["attributes"][lost] = spoilt
    (store / "zarr.json").write_text(json.dumps(node))
    (store / "journal" / "attributes").unlink()  # older stores have no copy
    for verb in ("status", "log", "doctor"):
        code = main([verb, str(store)])
        said = capsys.readouterr().err
        assert code in (DONE, DAMAGED if verb == "doctor" else MISTAKE)
        assert (code == DONE) == (said == "")
        assert code == DONE or lost in said


@pytest.mark.parametrize(
    ("index", "count"),
    [("3", 1), ("-1", 1), ("-2:", 2), ("9", 0), ("-9", 0), ("9:", 0)],
)
@pytest.mark.parametrize("suffix", [".xyz", ".traj", ".db"])
def test_an_index_names_structures_that_are_there(
    tmp_path: Path, suffix: str, index: str, count: int
) -> None:
    import ase.io
    from ase.build import molecule

    from alloop.core.errors import InputError
    from alloop.files.frames import read_frames

    file = tmp_path / f"x{suffix}"
    frames = [molecule("H2O") for _ in range(5)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=number)
    ase.io.write(file, frames)
    if not count:
        with pytest.raises(InputError, match="names none"):
            read_frames([f"{file}@{index}"])
        return
    found = read_frames([f"{file}@{index}"])
    wanted = frames[-count:] if index.startswith("-") else [frames[int(index)]]
    assert len(found) == count
    for given, atoms in zip(found, wanted, strict=True):
        assert given.frame.positions == pytest.approx(atoms.positions, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        bytes(range(256)),
        b"[1, 2]",
        b"? [a]\n: 3\n",
        b"name: !!python/object:os.system x",
        b'name: x\nstore: "a\\0b.zarr"',
        b"name: null\nlevels: null",
        b"name: x\nbudget: {cheap: 1" + 400 * b"0" + b"}",
        b"name: x\nstore: " + 300 * b"x",
        b"1: 2\n3: {4: 5}",
    ],
)
def test_no_yaml_file_ends_a_command_in_a_traceback(
    tmp_path: Path, text: bytes, capsys: Capture
) -> None:
    file = tmp_path / "é ü.yaml"
    file.write_bytes(text)
    for verb in ("check", "status"):
        assert main([verb, str(file)]) == 2
        told = capsys.readouterr()
        assert told.err
        assert told.out == ""


def test_a_store_may_be_named_from_within(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(store)
    for verb in ("status", "stop"):
        assert main([verb, "."]) == 0
    assert main(["stop", ".."]) == 2
    assert "is not an alloop store" in capsys.readouterr().err
