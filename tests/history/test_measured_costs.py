"""What things cost: the world charges 1 s a cheap label, 20 s an expensive one."""

from dataclasses import replace

import pytest

from alloop.history.measured_costs import (
    MeasuredCost,
    cheap_in_expensive,
    cpu_seconds_by_part,
    measured_costs,
    worker_utilisation,
)
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Prepare, Recheck, Sample, Train


@pytest.fixture(scope="module")
def game(world):
    rules = replace(world.RULES, recheck={"expensive": 0.2})
    return world.game(rules, molecules=2).play()


@pytest.fixture(scope="module")
def history(world, game):
    return world.history(game.turns)


def spans(world, *timings):
    """A history of explorations with these (started, ended, cpu, worker)."""
    turns = [
        e.Turn(e.Explored(1, 0, i, (), (), (), 1, e.Timing(*timing)))
        for i, timing in enumerate(timings)
    ]
    return world.history(turns)


def test_prices_are_means_by_fidelity_and_molecule(game, history):
    found = {(x.fidelity, x.formula): x for x in measured_costs(history)}
    assert set(found) == {
        (fidelity, formula)
        for fidelity in ("cheap", "expensive")
        for formula in ("H2", "He2")
    }
    assert {x.cpu_seconds for k, x in found.items() if k[0] == "cheap"} == {1.0}
    assert {x.cpu_seconds for k, x in found.items() if k[0] == "expensive"} == {20.0}
    asked = game.asked(LabelFrame, fidelity="cheap", molecule=0)
    assert found["cheap", "H2"].labels == len(asked)


def test_failures_and_given_labels_have_no_price(world):
    begun = world.game(given=(world.given("a", "expensive"),))
    command = next(x for x in begun.to("flag").state.open.values())
    begun.turn(world.failed(command))
    for price in measured_costs(world.history(begun.turns)):
        assert price.cpu_seconds in (1.0, 20.0)
        if price.fidelity == "expensive":
            tests = begun.asked(LabelFrame, purpose="test")
            assert price == MeasuredCost("expensive", "H2", len(tests), 20.0)


def test_cheap_labels_are_worth_their_cost_in_expensive_ones(game, history):
    cheap = game.asked(LabelFrame, fidelity="cheap")
    assert cheap_in_expensive(history) == pytest.approx(len(cheap) / 20.0)


def test_molecules_are_paid_in_their_own_coin(world):
    """The second molecule costs ten times as much at both levels: same exchange."""

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Labelled) and command.molecule == 1:
            dear = replace(event.label, cpu_seconds=10 * event.label.cpu_seconds)
            return replace(event, label=dear)
        return event

    game = world.game(molecules=2, reply=reply).play()
    cheap = game.asked(LabelFrame, fidelity="cheap")
    worth = cheap_in_expensive(world.history(game.turns))
    assert worth == pytest.approx(len(cheap) / 20.0)


def test_without_measured_prices_cheap_labels_are_worth_nothing(world):
    items = (world.given("a", "expensive"), world.given("b", "cheap"))
    assert cheap_in_expensive(world.history([e.Turn(world.opened(given=items))])) == 0


def test_all_cpu_seconds_belong_to_one_part(game, history):
    parts = cpu_seconds_by_part(history)
    count = {
        key: len(game.asked(LabelFrame, **facts))
        for key, facts in {
            "cheap": {"fidelity": "cheap"},
            "expensive": {"fidelity": "expensive"},
            "test": {"purpose": "test"},
        }.items()
    }
    assert parts == {
        "noise floor": len(game.asked(Recheck)) * 60.0,
        "cheap labels": count["cheap"] * 1.0,
        "expensive labels": (count["expensive"] - count["test"]) * 20.0,
        "validation set": count["test"] * 20.0,
        "examination": 0.0,
        "training": len(game.asked(Train)) * 1.0,
        "MD": len(game.asked(Explore)) * 1.0,
        "preparation": len(game.asked(Prepare) + game.asked(Sample)) * 1.0,
    }


def test_labels_from_a_cache_were_not_paid_here(world):
    def reply(command):
        event = world.answer(command)
        return replace(event, cached=True) if isinstance(event, e.Labelled) else event

    cached = world.history(world.game(reply=reply).play().turns)
    parts = cpu_seconds_by_part(cached)
    assert parts["cheap labels"] == parts["expensive labels"] == 0
    assert parts["training"] > 0
    assert cheap_in_expensive(cached) > 0


def test_two_busy_workers_are_used_fully(world):
    history = spans(world, (0, 10, 10, "a"), (0, 10, 10, "b"))
    assert worker_utilisation(history) == pytest.approx(1.0)


def test_waiting_counts_and_a_pause_between_two_runs_does_not(world):
    waiting = spans(world, (0, 10, 10, "a"), (30, 40, 10, "a"))
    assert worker_utilisation(waiting) == pytest.approx(20 / 40)
    paused = spans(world, (0, 10, 10, "a"), (1000, 1010, 10, "a"))
    assert worker_utilisation(paused) == pytest.approx(1.0)


def test_a_task_inside_another_adds_no_wall_time(world):
    history = spans(world, (0, 10, 6, "a"), (2, 5, 3, "a"))
    assert worker_utilisation(history) == pytest.approx(0.9)


def test_idle_workers_count_where_their_number_is_known(world):
    history = spans(world, (0, 10, 10, "a"))
    assert worker_utilisation(history, workers=2) == pytest.approx(0.5)


def test_before_any_task_there_is_no_utilisation(world):
    assert worker_utilisation(world.history([e.Turn(world.opened())])) is None
