"""Commands that write files: nothing is overwritten, nothing lands in a store."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import read, write

from alloop.campaign import Campaign
from alloop.cli.app import run_command
from alloop.core.errors import InputError
from alloop.files.targets import LABELS, refuse_target
from tests.conftest import write_toy

PRECIOUS = b"precious"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished toy campaign, with a model and a structure beside it."""
    budget = {"cheap": 16, "expensive": 6}
    file = write_toy(tmp_path_factory.mktemp("finished"), budget=budget)
    assert Campaign.from_yaml(file).run().exit_code == 0
    store = file.with_name("toy.zarr")
    Campaign.from_store(store).export_model(store.with_name("toy.model"))
    write(store.with_name("water.xyz"), molecule("H2O"))
    return store


def commands(store: Path, out: Path) -> list[list[str]]:
    """Every command that writes to a file of the user's choice."""
    model, water = store.with_name("toy.model"), store.with_name("water.xyz")
    level = ["--level", "{kind: toy}", "--workers", "1"]
    steps = ["--steps", "20", "--quiet"]
    pairs = ["--potential", "pairwise", "--quiet"]
    return [
        ["export", str(store), str(out.with_suffix(".xyz"))],
        ["export", str(store), str(out.with_suffix(".db"))],
        ["export", str(store), "--model", str(out.with_suffix(".model"))],
        ["report", str(store), "--out", str(out.with_suffix(".html"))],
        ["train", str(store), "--out", str(out.with_suffix(".model")), *pairs],
        ["label", str(water), *level, "--out", str(out.with_suffix(".xyz"))],
        ["md", str(model), str(water), "--out", str(out.with_suffix(".xyz")), *steps],
        ["md", str(model), str(water), "--out", str(out.with_suffix(".traj")), *steps],
    ]


def target(command: Sequence[str]) -> Path:
    """The file that a command writes."""
    for option in ("--out", "--model"):
        if option in command:
            return Path(command[command.index(option) + 1])
    return Path(command[2])


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_there_is_replaced_by_force_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, command in enumerate(commands(finished, tmp_path / "x")):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = commands(finished, folder / "x")[number]
        out = target(command)
        out.write_bytes(PRECIOUS)
        before = files(tmp_path)
        capsys.readouterr()
        assert run_command(command) == 2, command
        said = capsys.readouterr().err
        assert "is there already" in said
        assert said.count("\n") == 1
        assert files(tmp_path) == before
        assert run_command([*command, "--force"]) == 0, command
        assert out.read_bytes() != PRECIOUS
        made = out.read_bytes()
        again = run_command(command)  # finished jobs are done, other commands refuse
        assert again == (0 if command[0] in ("train", "label", "md") else 2)
        assert out.read_bytes() == made


def test_links_to_nowhere_and_folders_are_no_targets(
    finished: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for command in commands(finished, tmp_path / "link"):
        out = target(command)
        out.unlink(missing_ok=True)
        out.symlink_to(elsewhere)
        if command[0] in ("export", "report", "train"):
            assert run_command(command) == 2, command
        out.unlink()
        out.mkdir()
        assert run_command([*command, "--force"]) == 2, command
        out.rmdir()
        assert not elsewhere.exists()


def test_nothing_is_written_into_a_store(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    (tmp_path / "alias").symlink_to(finished)
    for folder in (finished, finished / "journal", tmp_path / "alias" / "models"):
        for command in commands(finished, folder / "x"):
            assert run_command([*command, "--force"]) == 2, command
            assert "within" in capsys.readouterr().err
    assert (
        run_command(["export", str(finished), "--model", str(finished / "zarr.json")])
        == 2
    )
    assert run_command(["fork", str(finished), str(finished / "fork.zarr")]) == 2
    inside = write_toy(tmp_path, store=str(finished / "another.zarr"))
    assert run_command(["run", str(inside), "--quiet"]) == 2
    assert files(finished) == before


def test_unknown_endings_are_refused_with_the_known_ones(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(finished, tmp_path / "x"):
        out = target(command)
        command[command.index(str(out))] = str(tmp_path / "x.odd")
        assert run_command(command) == 2
        said = capsys.readouterr().err
        assert out.suffix in said
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_a_target_is_kept_too(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = {"train": "x.model.json", "label": "x.xyz.failures.csv"}
    for command in commands(finished, tmp_path / "x"):
        if command[0] in beside:
            (tmp_path / beside[command[0]]).write_bytes(PRECIOUS)
            assert run_command(command) == 2
            assert "is there already" in capsys.readouterr().err
    assert set(files(tmp_path).values()) == {PRECIOUS}


def test_a_job_that_went_on_by_force_goes_on(finished: Path, tmp_path: Path) -> None:
    command = next(c for c in commands(finished, tmp_path / "x") if c[0] == "md")
    out = target(command)
    out.write_bytes(PRECIOUS)
    assert run_command([*command, "--force"]) == 0
    first = out.read_bytes()
    longer = [*command[: command.index("--steps")], "--steps", "40", "--quiet"]
    assert run_command([*longer, "--force"]) == 0  # its own: it goes on, not anew
    assert out.read_bytes().startswith(first)
    assert len(read(out, ":")) > 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        refuse_target(tmp_path / "no" / "x.xyz", LABELS)
