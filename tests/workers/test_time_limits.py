"""Runs that end before their limit, and campaigns that do not mind."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.history.reader import read_history
from alloop.history.record_index import LabelIndex
from alloop.labels.programs import level_cost
from alloop.labels.toy import toy_level
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Train
from alloop.workers import time_limits
from alloop.workers.batch_systems import parse_seconds
from alloop.workers.pools import InlinePool, LateTask, Task
from alloop.workers.task_times import TaskTimes
from alloop.workers.time_limits import TaskSpan, TimeLimit
from benchmarks.durability.comparison import store_contents
from tests import counted
from tests.conftest import write_toy

WATER = Frame([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.8, 0.6], [0.0, -0.8, 0.6]])


@pytest.mark.slow
def test_a_campaign_cut_into_short_runs_ends_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels take minutes of a clock that they move on themselves."""
    clock = counted.Clock(time.time)
    monkeypatch.setattr(counted, "CLOCK", clock)
    monkeypatch.setattr("time.time", clock)
    kind = "tests.counted:label_minutes"
    levels = {
        "cheap": {"kind": kind, "settings": {"minutes": 0.1, "stiffness": 0.9}},
        "expensive": {"kind": kind, "settings": {"minutes": 1.5, "stiffness": 1.0}},
    }
    whole = write_toy(tmp_path / "whole", levels=levels)
    assert Campaign.from_yaml(whole).run().exit_code == 0
    limits = {"isolate": False, "walltime": "15 min"}
    cut = write_toy(tmp_path / "cut", levels=levels, limits=limits)
    codes, lasted = [], list[float]()
    while not codes or codes[-1] == 3:
        begun = clock()
        codes.append(Campaign.from_yaml(cut).run().exit_code)
        lasted.append(clock() - begun)
        assert len(codes) < 12
    assert codes[-1] == 0
    assert len(codes) >= 2
    assert max(lasted) < 15 * 60
    assert min(lasted[:-1]) > 10 * 60  # a run is not ended long before its limit
    assert store_contents(cut.with_name("toy.zarr")) == store_contents(
        whole.with_name("toy.zarr")
    )


def test_a_limit_in_which_nothing_ends_is_told_in_one_sentence(tmp_path: Path) -> None:
    limits = {"isolate": False, "walltime": 0.001}
    campaign = Campaign.from_yaml(write_toy(tmp_path, limits=limits))
    with pytest.raises(InputError, match="prepare/0 among them") as refused:
        campaign.run()
    assert "\n" not in str(refused.value)


def test_a_batch_systems_warning_ends_a_run_cleanly(tmp_path: Path) -> None:
    levels = {"cheap": {"kind": "toy"}, "expensive": {"kind": "toy", "burn": 0.5}}
    campaign = write_toy(tmp_path, levels=levels)
    process = subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(campaign), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    store, end = campaign.with_name("toy.zarr"), time.monotonic() + 60
    while not (store.exists() and len(read_history(store).entries) > 2):  # labels began
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"continue with: alloop run {campaign}" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        ("59", 59),
        ("1:30", 90),
        ("2:00:10", 7210),
        ("1-02:03:04", 93784),
        ("UNLIMITED", None),
        ("", None),
    ],
)
def test_batch_systems_clocks_are_read(clock: str, seconds: float | None) -> None:
    assert parse_seconds(clock) == seconds


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_sooner_of_our_limit_and_the_jobs_own_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    pbs = "Job Id: 7\n    resources_used.walltime = 00:20:00\n"
    program(tmp_path, "qstat", pbs + "    Resource_List.walltime = 01:00:00\n")
    program(tmp_path, "squeue", "10:00")
    slurm, pbs = {"SLURM_JOB_ID": "7"}, {"PBS_JOBID": "7"}
    assert time_limits.batch_seconds_left({}) is None
    assert time_limits.batch_seconds_left(slurm) == 600
    assert time_limits.batch_seconds_left(pbs) == 2400
    ours = time_limits.run_limit(60.0, slurm)
    theirs = time_limits.run_limit(3600.0, slurm)
    assert ours is not None
    assert theirs is not None
    assert (ours.duration, theirs.duration) == (60, 600)
    assert time_limits.run_limit(None, {}) is None
    program(tmp_path, "squeue", "UNLIMITED")
    assert time_limits.run_limit(None, slurm) is None


def test_what_cannot_end_in_time_does_not_start() -> None:
    run = TimeLimit.from_now(
        100.0, duration=1000.0
    )  # 900 s are gone; 100 s are kept for the end
    assert not run.allows(TaskSpan(0.0, 1.0))
    run = TimeLimit.from_now(300.0, duration=1000.0)
    assert run.allows(TaskSpan(100.0, 190.0))
    assert not run.allows(TaskSpan(100.0, 210.0))


def test_what_may_outlast_any_run_starts_in_the_first_half_of_one() -> None:
    early = TimeLimit.from_now(1000.0)
    late = TimeLimit.from_now(500.0, duration=1000.0)
    assert early.allows(TaskSpan(0.0, 1e6))
    assert not late.allows(TaskSpan(0.0, 1e6))
    assert early.allows(TaskSpan(800.0, 1e6))
    assert not early.allows(TaskSpan(1e4, 1e6))  # it would never end


def test_an_inline_run_holds_back_what_is_late(tmp_path: Path) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    done: list[object] = []
    pool = InlinePool(setup.worker_settings, work=lambda *_: done.append(1))  # type: ignore[arg-type]
    command = LabelFrame(WATER, setup.levels["cheap"].id, "cheap", "seed", 0)
    pool.submit(
        Task(command, 1, span=TaskSpan(5.0, 10.0), limit=TimeLimit.from_now(3.0))
    )
    assert isinstance(pool.next(0.0), LateTask)
    assert done == []


def label(seconds: float) -> Label:
    level = toy_level()
    return Label(WATER.id, level.id, -1.0, WATER.positions, cpu_seconds=seconds)


def asked() -> LabelFrame:
    return LabelFrame(WATER, toy_level().id, "expensive", "seed", 0)


def ended(event: type, seconds: float, **facts: object) -> e.Event:
    timing = e.Timing(1000.0, 1000.0 + seconds, seconds)
    made: e.Event = event(timing=timing, **facts)
    return made


def test_a_label_takes_what_its_price_says_with_the_spread_on_top() -> None:
    times, level = TaskTimes([toy_level()], limit=1000.0), toy_level()
    cost = level_cost(level, [(WATER, label(20.0))] * 30)
    span = times.expected_span(asked(), LabelIndex(), {level.id: cost})
    assert span.likely == pytest.approx(20.0, rel=0.2)
    assert span.most == pytest.approx(span.likely * cost.spread(WATER) ** 2)


def test_before_any_price_a_label_takes_what_the_last_ones_took() -> None:
    times = TaskTimes([toy_level()], limit=100.0)
    vague = times.expected_span(asked(), LabelIndex(), {})
    assert vague.likely == 0.0
    assert 0.0 < vague.most <= 100.0
    for seconds in (3.0, 5.0, 4.0):
        times.note_event(
            ended(e.Labelled, seconds, name="label/x", label=label(seconds))
        )
    assert times.expected_span(asked(), LabelIndex(), {}) == TaskSpan(4.0, 7.5)


def test_no_label_takes_longer_than_it_may() -> None:
    times, level = TaskTimes([toy_level()], limit=8.0), toy_level()
    cost = level_cost(level, [(WATER, label(20.0))])
    assert times.expected_span(asked(), LabelIndex(), {level.id: cost}) == TaskSpan(
        8.0, 8.0
    )


def test_training_takes_what_the_last_one_took() -> None:
    times, train = TaskTimes(), Train(2, (), (), ())
    assert times.expected_span(train, LabelIndex(), {}) == TaskSpan()
    facts = {"name": "train/1", "generation": 1, "model": "m", "threshold": None}
    facts |= {"evaluation": None, "landmarks": WATER.positions}
    times.note_event(ended(e.Trained, 40.0, **facts))
    assert times.expected_span(train, LabelIndex(), {}) == TaskSpan(40.0, 60.0)
    longer = Train(3, (), (), (), length=2.0)
    assert times.expected_span(longer, LabelIndex(), {}) == TaskSpan(80.0, 120.0)


@pytest.mark.parametrize(
    ("said", "seconds"), [("90 s", 90), ("2 min", 120), ("1.5h", 5400), (30, 30)]
)
def test_a_duration_has_a_unit_or_is_in_seconds(
    tmp_path: Path, said: str | float, seconds: float
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path, limits={"walltime": said})).setup
    assert setup.plan.limits.walltime == seconds


@pytest.mark.parametrize("said", ["3 weeks", "soon", "-4 h", "0 s"])
def test_what_is_no_duration_is_refused(tmp_path: Path, said: str) -> None:
    campaign = write_toy(tmp_path, limits={"walltime": said})
    with pytest.raises(InputError, match=r"limits\.walltime"):
        Campaign.from_yaml(campaign)
