"""Lost labels, asked for again: by the API, the command line, and through kills."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.core.records import Failure, Unlabelled
from alloop.driver.run import RunObserver
from alloop.history.label_entries import label_entries
from alloop.history.reader import History, read_history
from alloop.loop import events as e
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

pytestmark = pytest.mark.usefixtures("uncovered")

BUDGET = {"cheap": 26, "expensive": 10}
TOY = {"kind": "toy", "stiffness": 0.9, "stretch": 0.02}


def slow_campaign(folder: Path, burn: float = 0.0) -> Path:
    """A campaign that loses a third of its expensive labels today."""
    folder.mkdir(parents=True)
    flag = folder / "slow"
    flag.touch()
    settings = {"path": str(flag), "burn": burn}
    late = {"kind": "tests.late:label_late", "settings": settings}
    levels = {"cheap": TOY, "expensive": late}
    return write_toy(folder, levels=levels, budget=BUDGET)


def failures(history: History) -> list[Failure]:
    records = history.label_index.labels.values()
    return [x.failure for x in records if isinstance(x, Unlabelled)]


def test_after_the_end_lost_labels_are_made_and_learned_from(tmp_path: Path) -> None:
    path = slow_campaign(tmp_path / "slow")
    campaign = Campaign.from_yaml(path)
    ended = campaign.run().state
    missing = failures(campaign.history())
    assert missing
    assert set(missing) == {Failure.TIMEOUT}
    assert campaign.lost() == len(missing)
    (path.parent / "slow").unlink()
    outcome = campaign.run(retry=True)
    history = campaign.history()
    assert outcome.finished == ended.finished == history.state.finished
    assert failures(history) == []
    assert campaign.lost() == 0
    assert (
        outcome.state.labels.used("expensive") == ended.labels.used("expensive") == 10
    )
    assert len(outcome.state.labels.trained_on("expensive")) == 10
    assert outcome.state.generations.count == ended.generations.count + 1
    assert sum(x.retry for x in label_entries(history)) == len(missing)
    length = len(history.entries)
    assert campaign.run(retry=True).exit_code == 0
    assert len(campaign.history().entries) == length


def test_before_the_end_lost_labels_are_learned_by_the_next_training(
    tmp_path: Path,
) -> None:
    path = slow_campaign(tmp_path / "slow")
    campaign = Campaign.from_yaml(path)
    turns: list[e.Turn] = []
    watch = RunObserver(
        lambda _, turn: turns.append(turn), stop=lambda: len(turns) > 45
    )
    assert campaign.run(observer=watch).finished is None
    assert campaign.lost()
    (path.parent / "slow").unlink()
    outcome = campaign.run(retry=True)
    assert outcome.finished == "the budget of expensive labels is spent"
    assert failures(campaign.history()) == []
    keys = [(x.frame, x.fidelity, x.purpose) for x in outcome.state.labels.entries()]
    assert len(keys) == len(set(keys))
    assert outcome.state.labels.used("expensive") == 10


def command(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(path), "--quiet", "--retry"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def killed_after(path: Path, records: int) -> bool:
    """Run until so many more records are there, SIGKILL; False if it ended before."""
    store = path.with_name("toy.zarr")
    begun = len(read_history(store).entries)
    process = command(path)
    while process.poll() is None and len(read_history(store).entries) < begun + records:
        time.sleep(0.1)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


@pytest.mark.slow
def test_kills_while_labels_are_made_again_change_nothing(tmp_path: Path) -> None:
    path = slow_campaign(tmp_path / "calm", burn=0.1)
    assert Campaign.from_yaml(path).run().exit_code == 0
    rough = tmp_path / "rough"
    shutil.copytree(path.parent, rough)
    (path.parent / "slow").unlink()
    assert Campaign.from_yaml(path).run(retry=True).exit_code == 0
    alone = store_contents(path.with_name("toy.zarr"))
    assert killed_after(rough / "toy.yaml", records=3)
    process = command(rough / "toy.yaml")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()
    assert store_contents(rough / "toy.zarr") == alone


def test_a_real_time_limit_is_raised_and_its_labels_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"kind": "toy", "burn": 0.6, "recheck": 0}
    facts: dict[str, Any] = {
        "levels": {"cheap": TOY, "expensive": slow},
        "seeds": {"cheap": 8, "expensive": 2, "temperature": 400},
        "validation": {
            "frames": 1,
            "temperature": 400,
            "each": 1,
            "spacing": 5,
            "examination": 0,
        },
        "budget": {"cheap": 8, "expensive": 2},
        "training": {"kind": "asteroid", "every": 2},
    }
    path = write_toy(tmp_path, **facts, limits={"label_time": 0.5})
    assert main(["run", str(path), "--quiet"]) == 0
    assert (
        "no expensive label succeeded"
        in read_history(tmp_path / "toy.zarr").state.finished
    )  # type: ignore[operator]
    write_toy(tmp_path, **facts, limits={"label_time": 60.0})
    capsys.readouterr()
    assert main(["run", str(path), "--quiet", "--retry"]) == 0
    assert "requesting 3 lost labels again" in capsys.readouterr().out
    state = read_history(tmp_path / "toy.zarr").state
    assert state.finished == "the budget of expensive labels is spent"
    assert len(state.labels.trained_on("expensive")) == 2
    assert len(state.labels.validation_frames()) == 1
    assert main(["resume", str(tmp_path / "toy.zarr"), "--quiet", "--retry"]) == 0
    assert "nothing to retry" in capsys.readouterr().out
