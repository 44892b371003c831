"""Finished long labels outlive the driver, and running ones go on without it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, LabelSet, TrainingData, Unlabelled
from alloop.history.reader import read_history
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Train
from alloop.potentials.analytic import Morse
from alloop.training.stages import Schedule, Stage
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.workers import spool, tasks
from alloop.workers.settings import TaskData
from alloop.workers.spool import Spool, spool_folder, training_progress
from alloop.workers.training_task import perform_training
from benchmarks.durability.comparison import store_contents
from tests.conftest import wait_for, write_toy

BUDGET = {"cheap": 16, "expensive": 12}
SMALL = {
    "budget": BUDGET,
    "seeds": {"cheap": 16, "expensive": 12, "temperature": 400},
    "validation": {
        "frames": 4,
        "temperature": 400,
        "each": 2,
        "spacing": 5,
        "examination": 0,
    },
    "training": {"kind": "asteroid", "every": 12},
}


def training(frames: list[Frame]) -> tuple[Train, TaskData]:
    """A training on toy labels of these frames."""
    batch = pack_frames(frames)
    said = Morse().predict(batch)
    labels = LabelSet(batch, said.energies, said.forces)
    ids = tuple(frame.id for frame in frames)
    command = Train(generation=1, cheap=ids, expensive=ids, test=())
    return command, TaskData(data=TrainingData(labels, labels))


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every label counts as a long one."""
    monkeypatch.setattr(tasks, "LONG", 0.0)


def test_a_long_label_is_left_where_the_driver_finds_it(
    tmp_path: Path, long: None
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    spool = Spool(tmp_path / "toy.zarr")
    kit = replace(setup.worker_settings, spool=spool.folder)
    level = setup.levels["cheap"].id
    command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
    done = tasks.perform_command(command, TaskData(), kit)
    assert isinstance(done.event, e.Labelled)
    found = spool.get(level, command.frame.id)
    assert isinstance(found, Label)
    assert found.forces.tobytes() == done.event.label.forces.tobytes()
    spool.drop_label(found)
    assert spool.get(level, command.frame.id) is None


def test_a_training_that_was_killed_goes_on_and_is_forgotten_once_committed(
    tmp_path: Path,
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    spool, steps = Spool(tmp_path / "toy.zarr"), []
    stages = (
        Stage("first", "cheap", 4, "scratch", schedule=Schedule(every=1)),
        Stage("second", "expensive", 4, schedule=Schedule(every=1)),
    )

    def told(stage: str, step: int, _steps: int, _loss: float) -> None:
        steps.append((stage, step))
        if len(steps) == 6:
            raise KeyboardInterrupt  # in the second stage

    trainer = StagedTrainer("painn", {"channels": 4, "layers": 1}, stages)
    kit = replace(
        setup.worker_settings, spool=spool.folder, make_trainer=lambda: trainer
    )
    told_trainer = replace(trainer, progress=told)
    alone, _ = perform_training(
        *(lesson := training(list(setup.start))), replace(kit, spool=None)
    )
    with pytest.raises(KeyboardInterrupt):
        perform_training(*lesson, replace(kit, make_trainer=lambda: told_trainer))
    event, _ = perform_training(
        *lesson, replace(kit, make_trainer=lambda: told_trainer)
    )
    assert event.model == alone.model
    assert [stage for stage, _ in steps[6:]] == ["second"] * 4
    assert list((spool.folder / "training").glob("*/*.safetensors"))
    (line,) = training_progress(spool.folder)
    assert line.startswith("second 4 of 4, loss ")
    spool.drop_training(event.name)
    assert not list((spool.folder / "training").iterdir())
    assert training_progress(spool.folder) == []


def test_without_a_folder_there_is_no_spool_and_no_failure(
    tmp_path: Path, long: None
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    kit = replace(setup.worker_settings, spool=tmp_path / "nowhere")
    level = setup.levels["cheap"].id
    command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
    assert isinstance(tasks.perform_command(command, TaskData(), kit).event, e.Labelled)
    assert not (tmp_path / "nowhere").exists()


def test_failures_that_may_pass_and_short_labels_are_not_spooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    spool = Spool(tmp_path / "toy.zarr")
    kit = replace(setup.worker_settings, spool=spool.folder)
    level = setup.levels["cheap"].id
    command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
    tasks.perform_command(command, TaskData(), kit)  # shorter than LONG
    monkeypatch.setattr(tasks, "LONG", 0.0)
    late = Unlabelled(command.frame.id, level, Failure.TIMEOUT)
    monkeypatch.setattr(tasks, "labeller_for", lambda *_: _Answers(late))
    tasks.perform_command(command, TaskData(), kit)
    assert spool.get(level, command.frame.id) is None


def test_a_worker_ends_only_when_no_label_is_in_hand() -> None:
    done: list[str] = []

    async def end() -> None:
        await spool.dask_teardown(None)
        done.append("ended")

    async def label() -> None:
        ending = asyncio.create_task(end())
        with spool.label_in_progress():
            await asyncio.sleep(0.5)
            done.append("labelled")
        await ending

    asyncio.run(label())
    assert done == ["labelled", "ended"]


def test_a_label_that_was_left_while_its_task_waited_is_not_made_again(
    tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    kit = replace(setup.worker_settings, spool=Spool(tmp_path / "toy.zarr").folder)
    level = setup.levels["cheap"].id
    command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
    first = tasks.perform_command(command, TaskData(), kit).event
    monkeypatch.delattr(tasks, "labeller_for")
    again = tasks.perform_command(command, TaskData(), kit).event
    assert isinstance(first, e.Labelled)
    assert isinstance(again, e.Labelled)
    assert again.label.forces.tobytes() == first.label.forces.tobytes()


class _Answers:
    """A labeller with one answer."""

    def __init__(self, record: Unlabelled) -> None:
        self._record = record

    def label(self, _frame: object) -> Unlabelled:
        return self._record


def test_a_finished_campaign_leaves_no_spool(tmp_path: Path, long: None) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    assert campaign.run().exit_code == 0
    assert not spool_folder(campaign.store).exists()


# --- a scheduler and workers of somebody else's ---------------------------------------

DASKS_PATIENCE = 75.0  # s, more than it waits for the thread of a worker that ends
WORKER = """
from distributed.cli.dask_worker import main
from alloop.workers import tasks
tasks.LONG = 0.05
main()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def foreign(
    workers: int, port: int | None = None, orphaned: Path | None = None
) -> Iterator[str]:
    """A scheduler and its workers as processes of their own; the address.

    orphaned: a file; at the end the scheduler alone dies, and workers end by themselves
    once that file is gone.
    """
    address = f"tcp://127.0.0.1:{port or free_port()}"
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = ["-m", "distributed.cli.dask_scheduler", *here]
    door = ["--port", address.rpartition(":")[2]]
    worker = ["-c", WORKER, address, "--nthreads", "1", *here]
    worker += ["--no-nanny"] if orphaned is None else ["--preload", spool.__name__]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    web = ["--dashboard-address", "127.0.0.1:0"]
    commands = [[*scheduler, *door, *web], *([*worker, *web] for _ in range(workers))]
    running = [
        subprocess.Popen([sys.executable, *command], env=env, **quiet)
        for command in commands
    ]
    try:
        wait_for(lambda: _answers(address), 40)
        yield address
        if orphaned is not None:
            running[0].kill()
            time.sleep(DASKS_PATIENCE)
            assert all(process.poll() is None for process in running[1:])
            orphaned.unlink()
            wait_for(lambda: all(x.poll() is not None for x in running), 60)
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait(20)


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("tcp://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def drive(campaign: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alloop", "run", str(campaign), "--quiet"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def counted(folder: Path, burn: float, **changes: object) -> tuple[Path, Path]:
    """A campaign whose expensive labels leave a line each, and where."""
    folder.mkdir(parents=True)
    lines = folder.parent / "lines"
    settings = {"path": str(lines), "burn": burn}
    level = {"kind": "tests.counted:label_counted", "settings": settings}
    cheap = {"kind": "toy", "stiffness": 0.9, "stretch": 0.02}
    levels = {"cheap": cheap, "expensive": level}
    return write_toy(folder, levels=levels, **{**SMALL, **changes}), lines


def test_labels_go_on_while_the_driver_is_away_and_none_is_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    with foreign(workers=1) as address:
        cluster = {"kind": "address", "address": address}
        campaign, lines = counted(tmp_path / "hit", 0.1, cluster=cluster)
        process = drive(campaign)
        wait_for(lambda: lines.exists() and len(lines.read_text().split()) >= 3, 60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        committed = _made(campaign)
        wait_for(lambda: len(lines.read_text().split()) >= 8, 60)  # nobody listens
        assert len(_made(campaign)) == len(committed) < 8
        assert Campaign.from_yaml(campaign).run().exit_code == 0
    made = Counter(lines.read_text().split())
    assert set(made.values()) == {1}  # no label was computed twice
    assert set(made) >= set(_made(campaign))  # rechecks leave lines too
    assert not spool_folder(campaign.with_name("toy.zarr")).exists()
    lines.unlink()
    alone, _ = counted(tmp_path / "alone", 0.1)
    assert Campaign.from_yaml(alone).run().exit_code == 0
    ours, theirs = (store_contents(x.with_name("toy.zarr")) for x in (campaign, alone))
    assert ours == theirs


@pytest.mark.slow
def test_a_foreign_scheduler_may_die_if_it_comes_back(tmp_path: Path) -> None:
    port, process = free_port(), None
    cluster = {"kind": "address", "address": f"tcp://127.0.0.1:{port}"}
    levels = {
        "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02},
        "expensive": {"kind": "toy", "burn": 0.3},
    }
    campaign = write_toy(tmp_path / "hit", levels=levels, cluster=cluster, **SMALL)
    with foreign(1, port):
        process = drive(campaign)
        store = campaign.with_name("toy.zarr")
        wait_for(lambda: store.exists() and len(read_history(store).entries) > 8, 60)
    assert process.poll() is None
    with foreign(1, port):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    alone = write_toy(tmp_path / "alone", levels=levels, **SMALL)
    assert Campaign.from_yaml(alone).run().exit_code == 0
    assert store_contents(store) == store_contents(alone.with_name("toy.zarr"))
    lost = [x for _, x in read_history(store).events() if isinstance(x, e.TaskLost)]
    assert lost == []


@pytest.mark.slow
def test_a_label_in_hand_is_ended_though_driver_and_scheduler_are_dead(
    tmp_path: Path,
) -> None:
    port = free_port()
    cluster = {"kind": "address", "address": f"tcp://127.0.0.1:{port}"}
    campaign, lines = counted(tmp_path / "hit", 0.1, cluster=cluster)
    hold, held = (Path(f"{lines}.{word}") for word in ("hold", "held"))
    with foreign(1, port, orphaned=hold):
        process = drive(campaign)
        wait_for(lambda: lines.exists() and len(lines.read_text().split()) >= 3, 90)
        hold.touch()
        wait_for(held.exists, 30)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        frame = held.read_text()
        assert frame not in _made(campaign)
    assert frame in lines.read_text().split()
    assert frame not in _made(campaign)
    level = read_history(campaign.with_name("toy.zarr")).state.levels["expensive"]
    assert Spool(campaign.with_name("toy.zarr")).get(level, frame) is not None
    with foreign(1, port):
        process = drive(campaign)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert set(Counter(lines.read_text().split()).values()) == {1}
    assert frame in _made(campaign)


def _made(campaign: Path) -> list[str]:
    history = read_history(campaign.with_name("toy.zarr"))
    level = history.state.levels["expensive"]
    return [frame for (where, frame) in history.label_index.labels if where == level]
