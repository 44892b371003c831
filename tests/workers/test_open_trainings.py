"""A committee's members train as tasks of their own, with the outcome of one task."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from alloop.campaign import Campaign
from alloop.evaluation import TrainedMember
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Train
from alloop.scores.committee import CommitteeScorer
from alloop.scores.qresidual import QResidualScorer
from alloop.workers import tasks, training_task
from alloop.workers.dask_pool import OpenTrainings
from alloop.workers.pools import Task
from alloop.workers.tasks import MemberResult
from benchmarks.durability.comparison import store_contents
from tests.conftest import LOCAL, write_toy

TRAIN = Train(1, (), (), ())
COMMITTEE = {"kind": "committee", "members": 3, "share": 0.7}
BUDGET = {"cheap": 26, "expensive": 10}


def result(number: int) -> MemberResult:
    member = TrainedMember(number, b"%d" % number, {})
    return MemberResult(TRAIN.name, member, e.Timing(number, number + 1, 1.0, "w"))


def add_all(
    trainings: OpenTrainings, results: Sequence[MemberResult]
) -> Sequence[Task | None]:
    return [trainings.add(each) for each in results]


def test_the_whole_task_follows_the_last_member_whatever_their_order() -> None:
    for order in permutations(range(3)):
        trainings = OpenTrainings(CommitteeScorer(members=3))
        parts = trainings.split(Task(TRAIN, 1))
        assert [part.data.member for part in parts] == [0, 1, 2]
        assert len({part.key for part in parts}) == 3
        assert all(trainings.split(part) == (part,) for part in parts)
        *early, whole = add_all(trainings, [result(number) for number in order])
        assert early == [None, None]
        assert trainings.add(result(1)) is None  # of an earlier attempt
        assert whole is not None
        assert [x.number for x in whole.data.trained] == [0, 1, 2]
        assert [x.started for x in whole.data.timings] == [0, 1, 2]


def test_a_loss_counts_once_and_what_was_trained_is_not_trained_again() -> None:
    trainings = OpenTrainings(CommitteeScorer(members=3))
    first, second, third = trainings.split(Task(TRAIN, 1))
    trainings.add(result(0))
    assert trainings.is_news(second)
    assert not trainings.is_news(third)
    assert trainings.add(result(2)) is None  # it was under way in the first attempt
    (again,) = trainings.split(Task(TRAIN, 2))
    assert again.data.member == 1
    assert not trainings.is_news(first)
    assert trainings.is_news(again)
    assert trainings.add(result(1)) is None
    (whole,) = trainings.split(Task(TRAIN, 3))
    assert [x.checkpoint for x in whole.data.trained] == [b"0", b"1", b"2"]
    assert trainings.is_news(whole)


def test_other_scorers_and_commands_are_one_task() -> None:
    task = Task(TRAIN, 1)
    assert OpenTrainings(QResidualScorer()).split(task) == (task,)
    label = Task(LabelFrame(None, "x", "cheap", "seed", 0), 1)  # type: ignore[arg-type]
    assert OpenTrainings(CommitteeScorer()).split(label) == (label,)


def test_members_on_workers_give_the_bits_of_one_process_after_a_loss_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = write_toy(tmp_path / "alone", budget=BUDGET, flag=COMMITTEE)
    Campaign.from_yaml(alone).run()
    whole, timings = training_task.perform_member, []
    failing = [2, 0, 1]  # in the first generation, each once

    def perform_member(command: Train, data: Any, settings: Any) -> TrainedMember:
        if command.generation == 1 and data.member in failing:
            failing.remove(data.member)
            raise MemoryError
        timings.append(data.member)
        return whole(command, data, settings)

    monkeypatch.setattr("alloop.workers.tasks.perform_member", perform_member)
    path = write_toy(tmp_path / "beside", budget=BUDGET, flag=COMMITTEE)
    campaign = Campaign.from_yaml(path)
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    with (
        LocalCluster(**local, protocol="tcp://", **LOCAL) as cluster,
        Client(cluster) as client,
    ):
        assert campaign.run(client=client).exit_code == 0
    assert failing == []
    history = campaign.history()
    trained = history.trained()
    assert len(timings) >= 3 * len(trained)
    assert store_contents(campaign.store) == store_contents(alone.with_name("toy.zarr"))


def test_cpu_seconds_are_those_of_all_tasks_of_a_training() -> None:
    parts = [e.Timing(5.0, 9.0, 3.0, "a"), e.Timing(4.0, 8.0, 2.0, "b")]
    last = e.Timing(9.0, 10.0, 1.0, "a")
    expected = replace(last, started=4.0, cpu_seconds=6.0)
    assert tasks._joined_timing(last, parts) == expected
