"""Counts, and sentences on gains, against a campaign whose numbers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alloop.cli import main
from alloop.core.cost_curve import Curve
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.records import Failure
from alloop.history.reader import History
from alloop.history.saved_fold import JournalFold
from alloop.loop import events as e
from alloop.loop.commands import Train
from alloop.loop.level_gains import PARTS
from alloop.loop.state import CampaignLabels, Generations, LoopState, PartErrors
from alloop.report.analysis.campaign_facts import (
    config_value,
    generation_facts,
    is_single,
    level_title,
    split_sentences,
)
from alloop.report.analysis.label_facts import label_totals, task_kinds
from alloop.report.analysis.timeline import predict_seconds_left, rounds_left, time_left
from benchmarks.durability.toy_campaign import write_campaign


def test_labels_are_counted_by_kind_and_by_how_they_ended(finished):
    cheap, expensive, test = label_totals(finished)
    assert (cheap.kind, expensive.kind, test.kind) == (
        "cheap",
        "expensive",
        "validation",
    )
    assert cheap.failures == {Failure.NOT_CONVERGED: cheap.failed}
    assert cheap.failed > 0
    assert (cheap.good + cheap.failed, cheap.used, cheap.budget) == (60, 60, 60)
    assert (expensive.good, expensive.used, expensive.budget) == (16, 16, 16)
    assert (test.good, test.used, test.budget) == (12, 0, None)


def test_prices_are_those_of_good_labels_and_spending_counts_failures(finished):
    cheap, expensive, _ = label_totals(finished)
    assert cheap.price == pytest.approx(0.5)
    assert expensive.price == pytest.approx(4.0)
    assert cheap.cpu_seconds == pytest.approx(0.5 * 60)


def test_cached_labels_cost_nothing_here_but_keep_their_price(control):
    cheap, expensive, _ = label_totals(control)
    assert expensive.cached > 0
    paid = expensive.good - expensive.cached
    assert expensive.cpu_seconds == pytest.approx(4.0 * paid)
    assert expensive.price == pytest.approx(4.0)
    assert cheap.supplied == 0


def test_generations_say_what_they_learned_from_and_what_it_cost(finished):
    first, *_, last = generation_facts(finished)
    assert (first.generation, first.cheap, first.expensive) == (1, 20, 6)
    assert first.label_cost == pytest.approx(20 * 0.5 + 6 * 4.0)
    assert last.expensive == 16
    assert last.label_cost == pytest.approx(60 * 0.5 + 16 * 4.0)
    assert [x.force_mae for x in generation_facts(finished)] == list(
        finished.state.generations.errors
    )


def test_cheap_labels_do_not_count_where_a_generation_learned_from_none(
    finished, remade
):
    entries = [
        replace(entry, turn=e.Turn(entry.turn.event, _bare(entry.turn.commands)))
        for entry in finished.entries
    ]
    first, *_ = generation_facts(remade(entries))
    assert first.cheap == 0
    assert first.label_cost == pytest.approx(6 * 4.0)


def _bare(commands):
    return tuple(replace(x, cheap=()) if isinstance(x, Train) else x for x in commands)


def test_the_levels_have_their_titles(finished):
    assert level_title(finished, "cheap") == "HF/STO-3G"
    assert level_title(replace(finished, attrs={}), "cheap") == "cheap"


def test_the_configuration_in_force_is_asked_for_settings(finished):
    assert config_value(finished, "budget", "cheap") == 60
    assert config_value(finished, "budget", "cheap", "deeper") is None
    assert config_value(finished, "nowhere") is None
    assert not is_single(finished)


def test_time_left_comes_from_what_earlier_rounds_took():
    assert predict_seconds_left([], 3, 0.0) is None
    assert predict_seconds_left([10.0], 3, 20.0) is None
    assert predict_seconds_left([0.0, 10.0, 20.0], 3, 24.0) == pytest.approx(3 * 10 - 4)
    assert predict_seconds_left([0.0, 10.0], 1, 500.0) == 0.0


def test_a_pause_between_two_runs_does_not_upset_the_estimate():
    times = [0.0, 10.0, 20.0, 9000.0, 9010.0]
    assert predict_seconds_left(times, 2, 9010.0) == pytest.approx(20.0)


def test_rounds_left_obey_budget_and_limit():
    assert rounds_left(11, 5, done=1, limit=None) == 3
    assert rounds_left(11, 5, done=1, limit=2) == 1
    assert rounds_left(11, 5, done=1, limit=None, turns=2) == 6
    assert rounds_left(0, 5, done=1, limit=9) == 0
    assert rounds_left(-3, 5, done=9, limit=2) == 0


def test_a_finished_campaign_has_no_time_left_and_a_young_one_does_not_know(
    finished, remade
):
    assert time_left(finished) == 0.0
    assert time_left(remade(list(finished.entries[:20]))) is None
    open_ = [x for x in finished.entries if not x.turn.commands[-1:] or x.seq < 90]
    assert time_left(remade(list(open_[:85]))) > 0.0


def test_open_tasks_are_counted_by_kind(finished, remade):
    state = remade(list(finished.entries[:2])).state
    assert task_kinds(state.open.values()) == {
        "cheap label": 20,
        "expensive label": 6,
        "preparation": 4,
    }


MEASURED = "budget: {cheap: 200, expensive: 50, split: measured}"


def history(errors: dict[str, float], generations: int = 2) -> History:
    """A campaign whose short trainings erred so, in meV/Å, at prices of 1 and 20."""
    shape = np.linspace(0.5, 1.5, 20) * 1e-3
    parts = {
        name: PartErrors(round(100 * c), round(40 * x), shape * errors[name])
        for name, (c, x) in PARTS.items()
    }
    flat = {key: Curve(price, 1e12, 1.0, 1.0) for key, price in (("c", 1), ("e", 20))}
    state = LoopState(
        levels={"cheap": "c", "expensive": "e"},
        start=(Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.7]])),),
        labels=CampaignLabels(
            costs={key: Cost(key, time=x, memory=x) for key, x in flat.items()}
        ),
        generations=Generations(
            part_errors=dict.fromkeys(range(1, generations + 1), parts)
        ),
    )
    attrs = {"config": MEASURED}
    return History(Path("x.zarr"), attrs, (), JournalFold(state=state))


GOOD = {"all": 10, "few-cheap": 12, "few-expensive": 15, "alone": 30}
IDLE = {"all": 10, "few-cheap": 10, "few-expensive": 15, "alone": 30}
ALONE = {"all": 10, "few-cheap": 12, "few-expensive": 15, "alone": 9}


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (GOOD, "cheap labels are to have 31% of all money"),
        (ALONE, "for the same money expensive labels alone would err less; no more"),
    ],
)
def test_a_sentence_says_what_becomes_of_the_money(
    errors: dict[str, float], words: str
) -> None:
    gain, verdict = split_sentences(history({**errors, "few-alone": 45}))
    assert "twice the expensive ones by 18 ± 0 %" in gain
    assert words.casefold() in verdict.casefold()


def test_labels_that_gain_nothing_are_not_worth_their_price() -> None:
    errors = {**IDLE, "few-cheap": 9.9, "few-alone": 45}
    verdict = split_sentences(history(errors))[-1]
    assert verdict.startswith("Cheap labels are not worth their price: they lower")
    errors = {**GOOD, "few-expensive": 9.9, "few-alone": 45}
    verdict = split_sentences(history(errors))[-1]
    assert verdict.startswith("Expensive labels are not worth their price")
    once = split_sentences(history({**IDLE, "few-alone": 45}, generations=1))[-1]
    assert "not worth" not in once


def test_all_commands_tell_of_a_measured_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_campaign(
        tmp_path,
        budget={"cheap": 24, "expensive": 12, "split": "measured"},
        seeds={"cheap": 8, "expensive": 6, "temperature": 400},
        validation={"frames": 4, "each": 2, "spacing": 5, "examination": 0},
    )

    def said(*words: str) -> str:
        assert main([*words]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "as many at the same price as pay best" in said("check", str(path))
    assert "short trainings worth 1.5 of a training" in said(
        "plan", str(path), "--no-measure"
    )
    assert "finished" in said("run", str(path))
    store = str(tmp_path / "toy.zarr")
    whole = said("status", store, "--all").lower()
    assert "for the money of both, expensive labels alone" in whole
    assert "on a quarter of the cheap labels and all expensive ones" in said(
        "log", store
    )
    assert "twice the cheap labels lower the error by" in whole
    report = tmp_path / "out.html"
    said("report", store, "--out", str(report))
    assert "Twice the cheap labels lower" in report.read_text("utf-8")
