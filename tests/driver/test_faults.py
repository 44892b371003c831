"""Whatever happens to the disk or the machine, the campaign is the one left alone."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.cli.exits import DAMAGED, RESUMABLE
from alloop.core.cost_curve import Curve
from alloop.core.label_cost import Cost
from alloop.core.levels import Level
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from alloop.store import packs
from alloop.store.journal import FOLDER
from benchmarks.durability.comparison import Trial, store_contents
from benchmarks.durability.disk_trials import (
    crash_trials,
    full_disk_trials,
    power_loss_trials,
    run_undisturbed,
)
from tests.conftest import write_toy

pytestmark = pytest.mark.usefixtures("uncovered")


def check(trials: Iterable[Trial], least: int) -> None:
    """No wrong dataset, no label twice, at most the one in flight made again."""
    found = list(trials)
    assert [trial for trial in found if trial.problem] == []
    assert [trial for trial in found if trial.duplicates] == []
    assert [trial for trial in found if trial.relabelled > 1] == []
    assert len(found) >= least


@pytest.mark.parametrize(
    ("staleness", "count", "every", "least"),
    [
        (1, 1, 5, 4),
        pytest.param(1, 3, 1, 12, marks=pytest.mark.slow),
        pytest.param(0, None, 1, 1000, marks=pytest.mark.slow),
        pytest.param(1, None, 1, 1000, marks=pytest.mark.slow),
    ],
)
def test_dead_before_an_operation_or_within_a_write_the_campaign_ends_the_same(
    tmp_path: Path, staleness: int, count: int | None, every: int, least: int
) -> None:
    """Of the kinds of change that the default run samples, each fifth is tried."""
    undisturbed = run_undisturbed(tmp_path, staleness, verify_every=4)
    check(crash_trials(undisturbed, count, lambda index: index % every), least)


@pytest.mark.slow
def test_a_crash_does_not_change_the_measured_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"cheap": 1.0, "expensive": 3.0}  # measured ones differ from run to run

    def same_costs(_: object, levels: Iterable[Level]) -> dict[str, Cost]:
        flat = {x.id: Curve(prices[x.settings["name"]], 1e12, 1.0, 1.0) for x in levels}
        return {key: Cost(key, time=curve, memory=curve) for key, curve in flat.items()}

    monkeypatch.setattr("alloop.driver.driver.label_costs", same_costs)
    undisturbed = run_undisturbed(
        tmp_path,
        0,
        verify_every=4,
        budget={"cheap": 24, "expensive": 12, "split": "measured"},
        seeds={"cheap": 8, "expensive": 6, "temperature": 400},
        validation={"frames": 4, "each": 2, "spacing": 5, "examination": 0},
    )
    parts = read_history(undisturbed.setup.store).state.generations.part_errors
    assert [len(found) for found in parts.values()] == [5] * len(parts)
    assert len(parts) > 1
    check(crash_trials(undisturbed, 1), 4)


@pytest.mark.parametrize(
    ("share", "least"),
    [(0.003, 3), pytest.param(0.5, 400, marks=pytest.mark.slow)],
)
def test_a_loss_of_power_takes_nothing_that_was_committed(
    tmp_path: Path, share: float, least: int
) -> None:
    undisturbed = run_undisturbed(tmp_path, 1)
    check(power_loss_trials(undisturbed, share, seed=3), least)


@pytest.mark.parametrize(
    ("step", "least"), [(300, 3), pytest.param(1, 500, marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_sentence_and_costs_nothing_once_there_is_room(
    tmp_path: Path, step: int, least: int
) -> None:
    undisturbed = run_undisturbed(tmp_path, 0)
    trials = full_disk_trials(undisturbed, lambda x: x < 2 or x % step == 0)
    check(trials, least)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a campaign that came to its end; copy it before you harm it."""
    path = write_toy(tmp_path_factory.mktemp("ended"))
    Campaign.from_yaml(path).run()
    return path


def copied(ended: Path, folder: Path) -> Path:
    return Path(shutil.copytree(ended.parent, folder)) / "toy.yaml"


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not start a process to check the level's code: there are many runs."""
    monkeypatch.setattr("alloop.driver.run.refuse_machine", lambda _: None)


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted at a folder; skips where this machine forbids that."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "kilobytes", [24, pytest.param(200, marks=pytest.mark.slow), 900]
)
def test_a_disk_that_is_really_full_is_one_sentence_and_costs_nothing(
    tmp_path: Path,
    ended: Path,
    kilobytes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", f"size={kilobytes}k", "none"):
        path = write_toy(disk, limits={"isolate": False, "disk_free": 0})
        assert main(["run", str(path), "--quiet"]) == RESUMABLE
        said = capsys.readouterr().err
        assert "space" in said
        assert said.count("\n") == 1, said
        shutil.copytree(disk, tmp_path / "room")
    Campaign.from_yaml(tmp_path / "room" / "toy.yaml").run()
    found = store_contents(tmp_path / "room" / "toy.zarr")
    assert found == store_contents(ended.with_name("toy.zarr"))


@pytest.mark.parametrize(
    ("harm", "number"),
    [
        ("flipped bit", 17),
        pytest.param("zeros", 17, marks=pytest.mark.slow),
        ("gone", 16),
    ],
)
def test_a_damaged_record_is_named_in_one_sentence_by_run_and_doctor(
    tmp_path: Path,
    harm: str,
    number: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "RECORDS", 16)
    path = write_toy(tmp_path)
    stop = count()
    Campaign.from_yaml(path).run(observer=RunObserver(stop=lambda: next(stop) > 40))
    harmed(tmp_path / "toy.zarr" / FOLDER, 17, harm)
    for command in (["run", str(path)], ["resume", str(tmp_path / "toy.zarr")]):
        assert main([*command, "--quiet"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert str(number) in said
    assert main(["doctor", str(tmp_path / "toy.zarr")]) == DAMAGED
    told = capsys.readouterr()
    assert re.search(rf"records? {number}\b", told.out + told.err)


def harmed(journal: Path, number: int, harm: str) -> None:
    """Harm the bytes of a record, wherever it lies, or its whole file."""
    span = packs.list_journal(journal).span_of(number)
    assert span is not None
    record, file = (
        packs.read_pack(journal, span).record_bytes(number),
        journal / span.name,
    )
    data = bytearray(file.read_bytes())
    begin = data.index(record)
    if harm == "gone":
        file.unlink()
    elif harm == "zeros":
        data[begin : begin + len(record)] = bytes(len(record))
        file.write_bytes(data)
    else:
        data[begin + len(record) // 2] ^= 4
        file.write_bytes(data)


def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = count(2_000_000_000, -3600)
    monkeypatch.setattr("time.time", lambda: float(next(hours)))
    path = write_toy(tmp_path)
    seen = count()
    Campaign.from_yaml(path).run(observer=RunObserver(stop=lambda: next(seen) > 30))
    assert main(["run", str(path), "--quiet"]) == 0
    monkeypatch.undo()
    history = Campaign.from_yaml(path).history()
    times = [entry.time for entry in history.entries]
    assert times == sorted(times, reverse=True)
    assert store_contents(tmp_path / "toy.zarr") == store_contents(
        ended.with_name("toy.zarr")
    )


def test_a_second_driver_is_refused_in_one_sentence_and_harms_nothing(
    tmp_path: Path, ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, turns = write_toy(tmp_path), count()

    def intrude(_state: object, _turn: object) -> None:
        if next(turns) == 15:
            assert main(["run", str(path), "--quiet"]) == 2

    Campaign.from_yaml(path).run(observer=RunObserver(intrude))
    said = capsys.readouterr().err
    assert "is in use by process" in said
    assert said.count("\n") == 1, said
    assert store_contents(tmp_path / "toy.zarr") == store_contents(
        ended.with_name("toy.zarr")
    )


def test_a_store_that_was_moved_between_two_runs_goes_on(
    tmp_path: Path, ended: Path
) -> None:
    path, seen = write_toy(tmp_path / "here"), count()
    Campaign.from_yaml(path).run(observer=RunObserver(stop=lambda: next(seen) > 30))
    there = tmp_path / "there" / "other.zarr"
    there.parent.mkdir()
    path.with_name("toy.zarr").rename(there)
    shutil.rmtree(path.parent)
    assert main(["resume", str(there), "--quiet"]) == 0
    assert store_contents(there) == store_contents(ended.with_name("toy.zarr"))


def test_a_store_that_cannot_be_written_is_read_and_refused_in_one_sentence(
    tmp_path: Path, ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(ended, tmp_path / "copy").parent
    place = tmp_path / "place"
    with mounted(place, "--bind", "-o", "ro", str(folder)):
        store = str(place / "toy.zarr")
        for command in (["status", store], ["log", store], ["doctor", store]):
            assert main(command) == 0
        assert main(["export", store, str(tmp_path / "out.xyz")]) == 0
        capsys.readouterr()
        assert main(["resume", store, "--quiet"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
