"""What a report counts, against a campaign whose numbers are known."""

from dataclasses import replace

import pytest

from alloop.core.records import Failure
from alloop.loop import events as e
from alloop.loop.commands import Train
from alloop.report.analysis.campaign_facts import (
    config_value,
    generation_facts,
    is_single,
    level_title,
)
from alloop.report.analysis.label_facts import label_totals, task_kinds
from alloop.report.analysis.timeline import predict_seconds_left, rounds_left, time_left


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
    assert rounds_left(11, 5, done=1, most=None) == 3
    assert rounds_left(11, 5, done=1, most=2) == 1
    assert rounds_left(11, 5, done=1, most=None, turns=2) == 6
    assert rounds_left(0, 5, done=1, most=9) == 0
    assert rounds_left(-3, 5, done=9, most=2) == 0


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
