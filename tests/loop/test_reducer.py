"""The fold of the journal: learning is absorbing, then asking."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.records import Walker
from alloop.loop import events as e
from alloop.loop.commands import Prepare, Stop, Train
from alloop.loop.reducer import ATTEMPTS, apply_commands, apply_event, next_state
from alloop.loop.state import TEST, CampaignLabels, LabelState, LabelTotals, LoopState
from tests.conftest import replay


def test_replaying_the_turns_gives_the_live_state_field_by_field(world):
    live = world.game(molecules=2).play()
    replayed = replay(live.turns)
    for field in fields(LoopState):
        one, other = (getattr(x, field.name) for x in (live.state, replayed))
        assert world.same(one, other), field.name


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cut=st.integers(0, 60))
def test_a_campaign_that_is_cut_and_replayed_ends_alike(world, cut):
    whole = world.game().play()
    broken = world.game()
    broken.play(lambda g: len(g.turns) > cut)
    broken.state = replay(broken.turns)
    broken.play()
    assert world.same(broken.state, whole.state)


def test_replay_goes_on_from_a_state(world):
    live = world.game().play()
    half = replay(live.turns[:20])
    assert world.same(replay(live.turns[20:], half), live.state)


def test_learning_is_absorbing_and_then_asking(world):
    opened = world.opened()
    command = Prepare(0, opened.start[0], 1, 1)
    learned = next_state(LoopState(), opened, [command])
    assert world.same(
        learned, apply_commands(apply_event(LoopState(), opened), [command])
    )
    assert learned.open == {"prepare/0": command}
    assert learned.stage == "seed"


def test_nothing_that_is_learned_changes_an_older_state(world):
    live = world.game()
    states, copies = [], []
    while live.state.open and len(live.turns) < 60:
        states.append(live.state)
        copies.append(
            {f.name: repr(getattr(live.state, f.name)) for f in fields(LoopState)}
        )
        name = sorted(live.state.open)[0]
        live.turn(world.answer(live.state.open[name]))
    for state, copy in zip(states, copies, strict=True):
        assert {f.name: repr(getattr(state, f.name)) for f in fields(LoopState)} == copy


def test_answers_close_what_they_answer(world):
    live = world.game()
    while live.state.open and not live.state.finished:
        name = sorted(live.state.open)[-1]
        live.turn(world.answer(live.state.open[name]))
        assert name not in live.state.open


def test_entries_of_closed_steps_lie_in_blocks(world):
    live = world.game().to("flag")
    assert live.state.labels.recent == ()
    assert [
        len({x.purpose for x in block.entries}) for block in live.state.labels.blocks
    ] == [2]
    live.to("bias")
    purposes = [
        {entry.purpose for entry in block.entries} for block in live.state.labels.blocks
    ]
    assert purposes == [{"seed", "test"}, {"control", "flagged"}]
    assert [x.purpose for x in live.state.labels.entries()].count("seed") == 9


def test_totals_are_those_of_all_labels_after_a_whole_game_and_a_retry(world):
    live = world.game().to("flag")
    lost = next(x for x in live.state.open.values() if x.fidelity == "cheap")
    live.turn(world.failed(lost))
    live.to("explore", generation=2)
    live.turn(e.Retried((lost,)))
    live.play()
    entries = list(live.state.labels.entries())
    unpaid = {"test", "given", "examination"}
    paid = Counter(x.fidelity for x in entries if x.purpose not in unpaid)
    again = next(
        x for x in entries if (x.frame, x.fidelity) == (lost.frame.id, "cheap")
    )
    assert again.good
    assert again.cpu_seconds > world.label(lost.frame, lost.level).cpu_seconds
    assert live.state.labels.used("cheap") == paid["cheap"] > 0
    assert live.state.labels.used("expensive") == paid["expensive"] > 0
    assert live.state.labels.cpu_seconds() == sum(x.cpu_seconds for x in entries)


def test_the_bias_is_the_mean_difference_from_the_models_forces(world):
    live = world.game().to("bias")
    biased = [x for x in live.state.labels.entries() if x.purpose == "flagged"]
    found = {
        c.frame.id: c
        for f in live.state.exploration.pieces.values()
        for c in f.candidates
    }
    assert biased
    for entry in biased:
        candidate = found[entry.frame]
        cheap = world.label(candidate.frame, world.LEVELS["cheap"])
        expected = np.abs(candidate.forces - cheap.forces).mean()
        assert entry.bias == pytest.approx(expected, rel=1e-12)


def test_only_cheap_labels_of_candidates_have_a_bias(world):
    live = world.game().play()
    for entry in live.state.labels.entries():
        may = entry.fidelity == "cheap" and entry.purpose in ("flagged", "control")
        assert (entry.bias is not None) == may


def test_labels_that_were_given_train_and_cost_nothing(world):
    items = (
        world.given("a", "cheap"),
        world.given("b", "expensive"),
        world.given("t", "expensive", test=True),
    )
    state = apply_event(LoopState(), world.opened(given=items))
    assert state.labels.trained_on("cheap") == (items[0].frame.id,)
    assert state.labels.trained_on("expensive") == (items[1].frame.id,)
    assert state.labels.validation_frames() == (items[2].frame.id,)
    assert state.labels.used("cheap") == state.labels.used("expensive") == 0
    assert state.labels.cpu_seconds() == 0
    assert state.seeds == {0: (items[0].frame, items[1].frame)}


def test_drawn_frames_join_those_that_were_given(world):
    item = world.given("a", "expensive")
    state = apply_event(LoopState(), world.opened(given=(item,)))
    prepared = e.Prepared("prepare/0", 0, item.frame, (world.frame("new"),), ())
    assert apply_event(state, prepared).seeds == {0: (item.frame, world.frame("new"))}


def test_failed_labels_are_spent_and_not_learned_from(world):
    live = world.game().to("flag")
    name, command = next(iter(live.state.open.items()))
    used, before = (
        live.state.labels.used(command.fidelity),
        live.state.labels.cpu_seconds(),
    )
    live.turn(world.failed(command))
    assert live.state.labels.used(command.fidelity) == used + 1
    assert command.frame.id not in live.state.labels.trained_on(command.fidelity)
    assert live.state.labels.cpu_seconds() == before + 2.0
    assert name not in live.state.open


def test_a_second_answer_changes_nothing(world):
    live = world.game().to("flag")
    command = next(iter(live.state.open.values()))
    event = world.answer(command)
    once = apply_event(live.state, event)
    assert world.same(apply_event(once, event), once)


@pytest.mark.parametrize("fidelity", ["cheap", "expensive", None])
def test_what_is_excluded_leaves_training_at_its_fidelity(world, fidelity):
    live = world.game().to("train")
    train = live.asked(Train)[0]
    frame = next(x for x in train.expensive if x in train.cheap)
    state = apply_event(live.state, e.Excluded(frame, fidelity, "odd"))
    assert (frame in state.labels.trained_on("cheap")) == (fidelity == "expensive")
    assert (frame in state.labels.trained_on("expensive")) == (fidelity == "cheap")


def test_a_cheap_exclusion_leaves_the_test_set_alone(world):
    live = world.game().to("train")
    test = live.state.labels.validation_frames()
    kept = apply_event(live.state, e.Excluded(test[0], "cheap", "odd"))
    lost = apply_event(live.state, e.Excluded(test[0], "expensive", "odd"))
    assert kept.labels.validation_frames() == test
    assert lost.labels.validation_frames() == test[1:]


def test_going_on_forgets_the_end_and_the_attempts(world):
    state = LoopState(finished="done", broken="odd", attempts={"train/1": ATTEMPTS})
    again = apply_event(state, e.Amended("", ()))
    assert (again.finished, again.broken, again.attempts) == (None, None, {})


def test_walkers_are_where_the_last_answer_left_them(world):
    live = world.game().to("explore")
    explore = next(iter(live.state.open.values()))
    explored = world.answer(explore)
    moved = apply_event(live.state, explored)
    for walker in explored.walkers:
        assert moved.exploration.walkers[walker.index] is walker


def test_a_round_forgets_what_the_last_one_found(world):
    live = world.game().to("flag")
    first = set(live.state.exploration.pieces)
    live.to("train", generation=1).to("explore", generation=2)
    assert first
    assert live.state.exploration.pieces == {}
    live.to("flag", generation=2)
    assert not first & set(live.state.exploration.pieces)


def test_a_generation_without_test_set_has_no_error(world):
    trained = e.Trained("train/1", 1, "m" * 32, None, None, np.zeros((0, 0)))
    state = apply_event(LoopState(), trained)
    assert np.isnan(state.generations.errors[0])
    assert state.exploration.threshold is None
    assert (state.generations.count, state.generations.model) == (1, "m" * 32)


def test_a_stop_ends_the_campaign_and_keeps_its_stage():
    state = apply_commands(LoopState(stage="train"), [Stop("enough")])
    assert (state.finished, state.stage, state.open) == ("enough", "train", {})


def test_asking_again_for_a_lost_exploration_keeps_the_walkers(world):
    live = world.game().to("explore")
    explore = next(iter(live.state.open.values()))
    lost = next_state(live.state, e.TaskLost(explore.name, 1, "killed"), [explore])
    assert world.same(lost.exploration.walkers, live.state.exploration.walkers)
    assert lost.attempts == {explore.name: 1}
    assert all(
        isinstance(walker, Walker) for walker in lost.exploration.walkers.values()
    )
    assert world.same(replace(lost, attempts={}), live.state)


def test_running_totals_are_those_of_all_labels() -> None:
    labels, entries = CampaignLabels(), []
    for number in range(12):
        fidelity = ("cheap", "expensive")[number % 3 == 0]
        purpose = TEST if number % 5 == 0 else "seed"
        entry = LabelState(
            f"{number:032x}", fidelity, purpose, 0, True, 0.1 * number + 0.01
        )
        entries.append(entry)
        labels = labels.with_entry(f"label/{number}", entry)
        if number % 4 == 3:
            labels = labels.close_step()
        assert labels.totals() == LabelTotals().add(entries)
    cut = replace(labels, recent=(), blocks=labels.blocks[:1])
    assert cut.totals() == LabelTotals().add(entries[:4])
