"""Labels that are made again, to know how noisy they are."""

from dataclasses import replace
from math import ceil

import pytest

from alloop.loop import events as e
from alloop.loop.commands import Examine, Explore, LabelFrame, Recheck, Train
from alloop.loop.reducer import ATTEMPTS
from alloop.loop.rules import Budget, Examining, SeedRules, StopRules

SHARES = {"cheap": 0.1, "expensive": 0.3}


@pytest.fixture
def rules(world):
    return replace(world.RULES, recheck=SHARES)


def good(turns, fidelity):
    """Frames with a good label before each training."""
    asked, frames, out = {}, set(), []
    for turn in turns:
        asked |= {x.name: x for x in turn.commands if isinstance(x, LabelFrame)}
        if isinstance(turn.event, e.Labelled):
            command = asked[turn.event.name]
            if command.fidelity == fidelity:
                frames.add(command.frame.id)
        if any(isinstance(x, Train) for x in turn.commands):
            out.append(set(frames))
    return out


@pytest.mark.parametrize("fidelity", ["cheap", "expensive"])
def test_each_training_brings_the_rechecked_share_up_to_date(world, rules, fidelity):
    begun = world.game(rules, molecules=2).play()
    labelled = good(begun.turns, fidelity)
    trainings = [
        [x for x in turn.commands if isinstance(x, Recheck)]
        for turn in begun.turns
        if any(isinstance(x, Train) for x in turn.commands)
    ]
    done = set()
    for frames, commands in zip(labelled, trainings, strict=True):
        asked = {x.frame for x in commands if x.fidelity == fidelity}
        assert asked <= frames
        assert not asked & done
        done |= asked
        assert len(done) == max(3, ceil(SHARES[fidelity] * len(frames)))
    assert len(trainings) > 1


@pytest.mark.parametrize("single", [False, True])
def test_beside_exploration_rechecks_come_with_the_last_labels_of_a_round(
    world, rules, single
):
    budget = Budget(cheap=0 if single else 40, expensive=20)
    rules = replace(rules, budget=budget, staleness=1)
    begun = world.game(rules, molecules=2).play()
    asked = [
        {getattr(x, "purpose", type(x).__name__) for x in turn.commands}
        for turn in begun.turns
        if any(isinstance(x, Recheck) for x in turn.commands)
    ]
    assert len(asked) > 2
    last = {"flagged", "control"} if single else {"bias"}
    assert all(each & last and "Price" not in each for each in asked[:-1])
    assert "Price" in asked[-1]  # no labels follow
    for fidelity in ("expensive",) if single else ("cheap", "expensive"):
        done = {x.frame for x in begun.asked(Recheck, fidelity=fidelity)}
        labels = {
            x.frame
            for x in begun.state.labels.entries()
            if x.good and not x.supplied and x.fidelity == fidelity
        }
        assert len(done) == max(3, ceil(SHARES[fidelity] * len(labels)))


def test_rechecks_that_waited_are_made_beside_the_examination(world, rules):
    rules = replace(
        rules,
        budget=Budget(cheap=80, expensive=40),
        stopping=StopRules(target=1e9),
        examining=Examining(frames=3),
        staleness=1,
    )
    begun = world.game(rules).play()
    assert begun.state.finished.startswith("the target is met")
    (turn,) = [
        x for x in begun.turns if any(isinstance(c, Recheck) for c in x.commands)
    ]
    assert isinstance(turn.commands[0], Examine)
    assert not begun.state.open


def test_where_there_are_fewer_than_three_labels_all_are_rechecked(world, rules):
    few = replace(rules, seeding=SeedRules(cheap=2, expensive=1, validation=0))
    begun = world.game(few).to("train")
    assert len(begun.asked(Recheck, fidelity="cheap")) == 2
    assert len(begun.asked(Recheck, fidelity="expensive")) == 1


def test_failed_labels_and_those_of_the_user_are_not_rechecked(world, rules):
    def reply(command):
        if isinstance(command, LabelFrame) and command.fidelity == "cheap":
            return world.failed(command)
        return world.answer(command)

    supplied = (
        *(world.given(f"x{i}", "expensive") for i in range(5)),
        *(world.given(f"t{i}", "expensive", test=True) for i in range(5)),
    )
    begun = world.game(rules, reply=reply, given=supplied).to("train")
    assert begun.asked(Train)
    assert begun.asked(Recheck) == []


def test_a_share_of_none_switches_rechecking_off(world):
    begun = world.game(replace(world.RULES, recheck={"cheap": 0.0})).play()
    assert begun.asked(Recheck) == []


def test_the_step_waits_for_the_last_recheck(world, rules):
    begun = world.game(rules).to("train")
    for name in sorted(begun.state.open, key=lambda x: x.startswith("recheck")):
        assert begun.asked(Explore) == []
        begun.turn(world.answer(begun.state.open[name]))
    assert begun.state.stage == "explore"


def test_a_recheck_that_is_lost_too_often_stops_nothing(world, rules):
    begun = world.game(rules).to("train")
    name = next(x for x in begun.state.open if x.startswith("recheck"))
    for attempt in range(1, ATTEMPTS + 1):
        begun.turn(e.TaskLost(name, attempt, "killed"))
    assert name not in begun.state.open
    begun.play()
    assert begun.state.finished == "the budget of expensive labels is spent"
    assert [x.name for x in begun.asked(Recheck)].count(name) == ATTEMPTS


def test_rechecks_decide_nothing(world, rules):
    plain, noisy = world.game().play(), world.game(rules).play()
    assert noisy.state.generations.errors == plain.state.generations.errors
    assert noisy.state.generations.model == plain.state.generations.model
    names = [[x.name for x in game.asked(LabelFrame)] for game in (plain, noisy)]
    assert sorted(names[0]) == sorted(names[1])
    assert noisy.state.labels.cpu_seconds() == plain.state.labels.cpu_seconds()


def test_histories_tell_how_labels_moved_and_what_they_cost(world, rules):
    begun = world.game(rules).play()
    history = world.history(begun.turns)
    asked = {x.name for x in begun.asked(Recheck)}
    assert {x.name for x in history.rechecked()} == asked
    assert {x.noise.force_max for x in history.rechecked()} == {5e-3}
    assert [x.name for x in history.priced()] == [
        f"price/{x.generation}" for x in begun.asked(Train)
    ]
