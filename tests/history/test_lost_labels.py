"""Lost labels that somebody asks for again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.records import Failure, Unlabelled
from alloop.history.label_entries import label_entries, lost_labels
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Train
from alloop.loop.reducer import ATTEMPTS
from tests.conftest import replay

END = "the budget of expensive labels is spent"


def losing(world, *names, failure=Failure.TIMEOUT):
    """A world that loses these labels the first time they are asked for."""
    lost_ones = set(names)

    def reply(command):
        if isinstance(command, LabelFrame) and command.name in lost_ones:
            lost_ones.discard(command.name)
            record = Unlabelled(command.frame.id, command.level, failure, "", 2.0)
            return e.NotLabelled(command.name, record)
        return world.answer(command)

    return reply


@pytest.fixture
def seeds(world):
    """Names of an expensive and a cheap seed label, and of a test label."""
    begun = world.game().to("train")
    expensive = begun.asked(LabelFrame, purpose="seed", fidelity="expensive")
    cheap = begun.asked(LabelFrame, purpose="seed", fidelity="cheap")
    test = begun.asked(LabelFrame, purpose="test")
    return expensive[0].name, cheap[-1].name, test[0].name


def retried(world, game):
    """Ask again for all that a history of the game says was lost."""
    labels = lost_labels(world.history(game.turns))
    return labels, game.turn(e.Retried(labels))


def entry(state, name):
    (found,) = [
        x
        for x in state.labels.entries()
        if name.endswith(x.frame) and x.purpose != "control"
        if name == f"label/{state.levels[x.fidelity]}/{x.frame}"
    ]
    return found


def test_only_labels_that_another_try_may_give_are_lost(world):
    begun = world.game().to("flag")
    names = sorted(begun.state.open)
    kinds = (Failure.TIMEOUT, Failure.GATE, Failure.MEMORY, Failure.CRASHED)
    for name, kind in zip(names, kinds, strict=False):
        command = begun.state.open[name]
        record = Unlabelled(command.frame.id, command.level, kind)
        begun.turn(e.NotLabelled(name, record))
    for attempt in range(1, ATTEMPTS + 1):
        begun.turn(e.TaskLost(names[4], attempt, "killed"))
    found = {command.name for command in lost_labels(world.history(begun.turns))}
    assert found == {names[0], names[2], names[3], names[4]}


def test_after_the_end_what_comes_back_is_learned_in_one_more_training(world, seeds):
    begun = world.game(reply=losing(world, *seeds)).play()
    state = begun.state
    used = [state.labels.used(x) for x in ("cheap", "expensive")]
    labels, commands = retried(world, begun)
    assert [x.name for x in labels] == sorted(seeds)
    assert commands == labels
    assert (begun.state.stage, begun.state.finished) == (state.stage, None)
    begun.play()
    assert begun.state.finished == END
    assert begun.state.generations.count == state.generations.count + 1
    train = begun.asked(Train)[-1]
    assert seeds[0].split("/")[-1] in train.expensive
    assert seeds[2].split("/")[-1] in train.test
    assert [begun.state.labels.used(x) for x in ("cheap", "expensive")] == used
    assert begun.state.exploration.round == state.exploration.round
    assert entry(begun.state, seeds[0]).cpu_seconds == 2.0 + 20.0
    assert begun.state.labels.retries == {}


def test_what_fails_again_brings_no_training_and_may_be_asked_for_again(world, seeds):
    begun = world.game(reply=losing(world, seeds[0])).play()
    generation = begun.state.generations.count
    _, (command,) = retried(world, begun)
    record = Unlabelled(command.frame.id, command.level, Failure.TIMEOUT, "", 3.0)
    (stop,) = begun.turn(e.NotLabelled(command.name, record))
    assert stop.reason == END
    assert begun.state.generations.count == generation
    assert entry(begun.state, seeds[0]).cpu_seconds == 2.0 + 3.0
    assert [x.name for x in lost_labels(world.history(begun.turns))] == [seeds[0]]


def test_with_nothing_good_before_a_retry_begins_the_campaign(world):
    begun = world.game().to("train")
    names = [x.name for x in begun.asked(LabelFrame, fidelity="expensive")]
    begun = world.game(reply=losing(world, *names)).play()
    assert begun.state.finished.startswith("no expensive label")
    assert len(retried(world, begun)[0]) == len(names)
    begun.play()
    assert begun.state.finished == END


@pytest.mark.parametrize("stage", ["train", "explore", "flag", "bias"])
def test_in_the_middle_retries_wait_for_the_open_step_and_lose_none(
    world, seeds, stage
):
    """The same labels, rounds and trainings as without the loss, from the next
    training on."""
    calm = world.game().play()
    begun = world.game(reply=losing(world, seeds[0])).to(stage)
    before = len(begun.asked(Train))
    labels, commands = retried(world, begun)
    assert commands == ()
    assert lost_labels(world.history(begun.turns)) == ()
    begun.play(lambda g: labels[0].name in g.state.open)
    assert set(begun.state.open) == {labels[0].name}
    assert begun.state.stage == stage
    begun.play()
    assert begun.state.finished == END
    assert begun.state.exploration.round == calm.state.exploration.round
    assert len(begun.asked(Train)) == len(calm.asked(Train))
    frame = labels[0].frame.id
    assert [frame in x.expensive for x in begun.asked(Train)] == [
        number >= before for number in range(len(begun.asked(Train)))
    ]


def test_a_lost_flagged_label_that_returns_in_its_round_may_win_an_expensive_one(
    world,
):
    begun = world.game().to("flag")
    names = [x.name for x in begun.asked(LabelFrame, purpose="flagged")]
    begun = world.game(reply=losing(world, *names)).to("flag")
    begun.play(lambda g: len(g.state.open) == 1)
    retried(world, begun)
    begun.to("bias")
    assert begun.asked(LabelFrame, purpose="bias")


def test_a_retry_that_is_lost_with_its_worker_is_sent_again(world, seeds):
    begun = world.game(reply=losing(world, seeds[0])).play()
    _, (command,) = retried(world, begun)
    stage = begun.state.stage
    assert begun.turn(e.TaskLost(command.name, 1, "killed")) == (command,)
    assert begun.state.stage == stage
    begun.play()
    assert entry(begun.state, seeds[0]).good


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_whenever_a_retry_comes_the_state_is_the_fold_of_its_journal(world, seed):
    rng = np.random.default_rng(seed)
    begun = world.game().to("train")
    names = [x.name for x in begun.asked(LabelFrame, purpose="seed")]
    begun = world.game(reply=losing(world, *names[::2]))
    instant = int(rng.integers(1, 90))
    begun.play(lambda g: len(g.turns) >= instant, lambda n: int(rng.integers(n)))
    labels = lost_labels(world.history(begun.turns))
    if labels:
        begun.turn(e.Retried(labels))
    begun.state = replay(begun.turns)
    begun.play(choose=lambda n: int(rng.integers(n)))
    assert begun.state.finished == END
    assert world.same(replay(begun.turns), begun.state)
    assert begun.state.labels.used("expensive") == 12
    assert not begun.state.labels.retries
    assert all(entry(begun.state, x.name).good for x in labels)
    keys = [(x.frame, x.fidelity) for x in begun.state.labels.entries()]
    assert len(keys) == len(set(keys))


def test_both_tries_are_told_and_the_second_says_what_it_is(world, seeds):
    begun = world.game(reply=losing(world, seeds[1])).play()
    retried(world, begun)
    begun.play()
    frame = seeds[1].split("/")[-1]
    stories = [
        x
        for x in label_entries(world.history(begun.turns))
        if x.frame.id == frame and x.fidelity == "cheap"
    ]
    assert [x.retry for x in stories] == [False, True]
    assert isinstance(stories[0].record, Unlabelled)
    assert stories[1].cpu_seconds == 1.0
    assert stories[0].purpose == stories[1].purpose == "seed"


def test_labels_taken_out_by_hand_are_not_asked_for_again(world, seeds):
    begun = world.game(reply=losing(world, seeds[0])).play()
    begun.turn(e.Excluded(seeds[0].split("/")[-1], None, "odd"))
    assert lost_labels(world.history(begun.turns)) == ()


def test_a_raised_budget_and_a_retry_go_together(world, seeds):
    begun = world.game(reply=losing(world, seeds[0])).play()
    more = replace(world.RULES.budget, expensive=16)
    begun.rules = replace(world.RULES, budget=more)
    begun.turn(e.Amended("", ("budget",)))
    assert retried(world, begun)[1] == ()
    begun.play()
    assert begun.state.labels.used("expensive") == 16
    assert entry(begun.state, seeds[0]).good
