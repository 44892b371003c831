"""Failures of one kind pause a run, and nothing else does."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.campaign import Campaign
from alloop.core.errors import Interrupted
from alloop.core.records import Failure, Unlabelled
from alloop.driver import oversight
from alloop.driver.driver import Driver
from alloop.driver.failure_rates import (
    Outcomes,
    failing_kinds,
    pause_reason,
    task_kind,
    with_outcome,
)
from alloop.history.reader import read_history
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, LabelFrame, Train, TrainPart
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy
from tests.loop.conftest import LEVELS, frame, label

HERE = frame("here")
LOST = Unlabelled(HERE.id, LEVELS["expensive"], Failure.GATE, "force too large")
ASKED = LabelFrame(HERE, LEVELS["expensive"], "expensive", "flagged", 0)
BAD = e.NotLabelled(ASKED.name, LOST)
GOOD = e.Labelled(BAD.name, label(HERE, LEVELS["expensive"]))


def played(outcomes: list[bool], share: float | None = 0.8) -> tuple[int, str | None]:
    """The answers until the first pause, and its reason."""
    seen: Outcomes = {}
    for number, good in enumerate(outcomes, 1):
        event = GOOD if good else BAD
        seen = with_outcome(seen, event, ASKED, 20)
        reason = pause_reason(seen, event, share, 20)
        if reason is not None:
            return number, reason
    return len(outcomes), None


def test_ten_failures_at_the_beginning_pause_with_the_cause() -> None:
    assert played([False] * 40) == (
        10,
        "10 of the last 10 expensive labels failed, the last one by gate "
        "(force too large)",
    )
    assert played([False] * 40, None) == (40, None)


@given(st.lists(st.booleans(), max_size=60))
def test_it_pauses_when_the_share_of_the_last_twenty_is_reached(
    outcomes: list[bool],
) -> None:
    def full(end: int) -> bool:
        last = outcomes[max(0, end - 20) : end]
        bad = sum(not x for x in last)
        return end >= 10 and bad >= 0.8 * len(last) and not outcomes[end - 1]

    first = next((n for n in range(1, len(outcomes) + 1) if full(n)), None)
    number, reason = played(outcomes)
    assert reason is None if first is None else reason is not None
    assert number == (len(outcomes) if first is None else first)


def test_kinds_are_counted_apart_and_caches_not_at_all() -> None:
    bad = (False,) * 9
    assert failing_kinds({"a": bad, "b": bad}, 0.8, 20) == {}
    assert failing_kinds({"a": (*bad, False), "b": bad}, 0.8, 20) == {"a": (10, 10)}
    assert (
        with_outcome({}, e.Labelled(GOOD.name, GOOD.label, cached=True), ASKED, 20)
        == {}
    )
    commands = (
        Train(3, (), (), ()),
        TrainPart(3, "both", (), (), (), share=0.1),
        Explore(1, 0, 0, 1, "m", (), steps=5, keep=1, controls=0),
        replace(ASKED, level=LEVELS["cheap"], fidelity="cheap"),
    )
    kinds = [task_kind(command) for command in commands]
    assert kinds == ["training", "training", "piece of MD", "cheap label"]


def test_a_broken_level_pauses_a_campaign_after_ten_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Driver._known_answer

    def fail(driver: Driver, command: Command) -> e.Answer | e.TaskLost | None:
        if not isinstance(command, LabelFrame) or command.fidelity != "cheap":
            return answer(driver, command)
        crash = Unlabelled(command.frame.id, command.level, Failure.CRASHED, "no xtb")
        return e.NotLabelled(command.name, crash)

    monkeypatch.setattr(Driver, "_known_answer", fail)
    with pytest.raises(Interrupted, match=r"10 of the last 10 cheap .*\(no xtb"):
        Campaign.from_yaml(write_toy(tmp_path)).run()
    state = read_history(tmp_path / "toy.zarr").state
    assert (state.broken, state.finished) == (None, None)  # it is taken up as it is
    assert sum(not x.good for x in state.labels.entries()) == 10


@pytest.mark.slow
def test_a_paused_campaign_ends_as_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Campaign.from_yaml(write_toy(tmp_path / "alone"))
    alone.run()
    path, events = write_toy(tmp_path / "x"), count()
    with monkeypatch.context() as patch:
        patch.setattr(
            oversight,
            "pause_reason",
            lambda *_: "a test" if next(events) % 9 == 8 else None,
        )
        for _ in range(5):
            with pytest.raises(Interrupted, match="a test"):
                Campaign.from_yaml(path).run()
    resumed = Campaign.from_yaml(path)
    assert resumed.run().finished
    assert store_contents(resumed.store) == store_contents(alone.store)
