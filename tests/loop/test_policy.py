"""Events in, commands out."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.doubts import Doubt, doubts_to_text
from alloop.core.records import Walker
from alloop.loop import events as e
from alloop.loop.commands import (
    Explore,
    LabelFrame,
    Price,
    Recheck,
    Sample,
    Stop,
    Train,
)
from alloop.loop.reducer import ATTEMPTS
from alloop.loop.rules import Budget, ExploreRules, SeedRules, StopRules
from alloop.loop.state import CampaignLabels, LabelState, LoopState
from tests.loop.conftest import ids

NOISE = {"cheap": 0.1, "expensive": 0.3}


def test_a_campaign_opens_by_preparing_every_molecule(world):
    begun = world.Game()
    commands = begun.turn(world.opened(3))
    assert [command.name for command in commands] == [f"prepare/{i}" for i in range(3)]
    assert [command.seeds for command in commands] == [2, 2, 2]
    # 4 test frames over 3 molecules are 2 + 1 + 1, at 2 frames a walker.
    assert [command.walkers for command in commands] == [1, 1, 1]


def test_a_prepared_molecule_asks_for_seed_labels_and_for_samples(world):
    begun = world.game()
    (prepare,) = begun.state.open.values()
    prepared = world.answer(prepare)
    commands = begun.turn(prepared)
    labels = [command for command in commands if isinstance(command, LabelFrame)]
    expensive = [x.frame for x in labels if x.fidelity == "expensive"]
    cheap = [x.frame for x in labels if x.fidelity == "cheap"]
    assert expensive == list(prepared.seeds[:3])
    assert cheap == list(prepared.seeds[:6])
    assert {x.purpose for x in labels} == {"seed"}
    assert {x.level for x in labels} == set(world.LEVELS.values())
    samples = [command for command in commands if isinstance(command, Sample)]
    assert [sample.walker for sample in samples] == list(prepared.starts)
    assert {sample.frames for sample in samples} == {2}


def test_sampled_frames_become_the_test_set_at_the_expensive_level(world):
    begun = world.game()
    begun.turn(world.answer(begun.state.open["prepare/0"]))
    sampled = world.answer(begun.state.open["sample/1000"])
    commands = begun.turn(sampled)
    assert [command.frame for command in commands] == list(sampled.frames)
    assert {(x.fidelity, x.purpose) for x in commands} == {("expensive", "test")}


@pytest.mark.parametrize("molecules", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 5, 10, 11, 12])
def test_exactly_the_validation_frames_asked_for_are_bought(world, frames, molecules):
    seeding = SeedRules(cheap=6, expensive=3, validation=frames, per_walker=3)
    begun = world.game(replace(world.RULES, seeding=seeding), molecules=molecules)
    begun.to("train")
    assert len(begun.asked(LabelFrame, purpose="test")) == frames
    samples = begun.asked(Sample)
    assert all(1 <= sample.frames <= 3 for sample in samples)
    assert len(samples) == sum(
        ceil((frames // molecules + (i < frames % molecules)) / 3)
        for i in range(molecules)
    )


def test_the_first_training_waits_for_the_last_answer(world):
    begun = world.game()
    begun.play(lambda g: len(g.state.open) == 1 and g.state.seeds)
    assert begun.asked(Train) == []
    begun.play(lambda g: g.state.stage == "train")
    (train,) = begun.asked(Train)
    assert train.generation == 1
    assert train.parent is None
    assert train.cheap == tuple(ids(begun.asked(LabelFrame, fidelity="cheap")))
    seeds = begun.asked(LabelFrame, fidelity="expensive", purpose="seed")
    tests = begun.asked(LabelFrame, purpose="test")
    assert train.expensive == tuple(ids(seeds))
    assert train.test == tuple(ids(tests))
    assert not set(train.test) & {*train.cheap, *train.expensive}


def test_a_trained_model_explores_with_all_walkers_in_batches(world):
    begun = world.game().to("explore")
    explores = list(begun.state.open.values())
    assert [x.name for x in explores] == ["explore/1/0/0", "explore/1/1/0"]
    assert [[w.index for w in x.walkers] for x in explores] == [[0, 1], [2, 3]]
    assert {x.model for x in explores} == {begun.state.generations.model}
    assert {(x.generation, x.steps, x.piece) for x in explores} == {(1, 10, 0)}


def test_fresh_walkers_start_from_seeds_at_rest_on_average(world):
    begun = world.game().to("explore")
    seeds = begun.state.seeds[0]
    for explore in begun.state.open.values():
        for walker in explore.walkers:
            assert walker.frame in seeds
            assert walker.step == 0
            momentum = walker.velocities.sum(axis=0)  # equal masses
            np.testing.assert_allclose(momentum, 0, atol=1e-12)


def test_walkers_are_dealt_to_the_molecules_in_turn(world):
    begun = world.game(molecules=3).to("explore")
    walkers = [w for x in begun.state.open.values() for w in x.walkers]
    assert [walker.molecule for walker in walkers] == [0, 1, 2, 0]


def test_a_molecule_without_seeds_walks_from_its_start(world):
    few = replace(world.RULES, seeding=SeedRules(cheap=2, expensive=2, validation=3))
    begun = world.game(few, molecules=3).to("explore")
    walkers = [w for x in begun.state.open.values() for w in x.walkers]
    assert walkers[2].frame == begun.state.start[2]


def test_a_piece_is_followed_by_the_next_until_the_steps_are_done(world):
    begun = world.game().to("explore")
    steps, name = [], "explore/1/0/0"
    while name:
        explore = begun.state.open[name]
        steps.append(explore.steps)
        explored = world.answer(explore)
        after = begun.turn(explored)
        name = after[0].name if after else ""
        if after:
            assert after[0].walkers == explored.walkers
            assert after[0].model == explore.model
    assert steps == [10, 10, 5]


def test_walking_walkers_go_on_and_stopped_ones_start_afresh(world):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Explored) and event.name == "explore/1/0/2":
            first, *rest = event.walkers
            return replace(event, walkers=(replace(first, stopped="bond"), *rest))
        return event

    begun = world.game(reply=reply).to("explore").to("flag")
    old = dict(begun.state.exploration.walkers)
    begun.to("explore")
    new = {w.index: w for x in begun.state.open.values() for w in x.walkers}
    assert old[0].stopped == "bond"
    assert new[0].stopped is None
    assert new[0].step == 0
    assert new[0].frame in begun.state.seeds[0]
    assert all(new[index] is old[index] for index in (1, 2, 3))


@pytest.mark.parametrize("protocol", ["naive", "non-periodic"])
def test_other_protocols_stay_on_the_first_model_and_still_train(world, protocol):
    exploring = replace(world.RULES.exploring, protocol=protocol)
    done = world.game(replace(world.RULES, exploring=exploring)).play()
    assert {x.generation for x in done.asked(Explore)} == {1}
    rounds = {x.round for x in done.asked(Explore)}
    trained = [x.generation for x in done.asked(Train)]
    assert len(rounds) >= 2
    assert trained == list(range(1, len(rounds) + 2))


def test_naive_rounds_start_anew_and_the_others_go_on(world):
    for protocol in ("periodic", "non-periodic", "naive"):
        exploring = replace(world.RULES.exploring, protocol=protocol)
        done = world.game(replace(world.RULES, exploring=exploring)).play()
        later = [x for x in done.asked(Explore, piece=0) if x.round > 1]
        steps = {walker.step for command in later for walker in command.walkers}
        assert (steps == {0}) == (protocol == "naive"), protocol


def test_a_protocol_changed_on_the_way_takes_the_oldest_model_still_known(world):
    begun = world.game().to("explore", generation=2)
    naive = replace(begun.rules.exploring, protocol="naive")
    begun.rules = replace(begun.rules, exploring=naive)
    used = {x.generation for x in begun.play().asked(Explore)}
    assert begun.state.finished
    assert max(used) == 2


def test_molecules_share_the_flagged_labels_evenly(world):
    begun = world.game(molecules=2).to("flag")
    asked = begun.asked(LabelFrame, purpose="flagged")
    counts = np.bincount([command.molecule for command in asked], minlength=2)
    assert abs(counts[0] - counts[1]) <= 1


def test_a_lost_task_is_tried_again_and_a_label_then_forsaken(world):
    begun = world.game()
    begun.turn(world.answer(begun.state.open["prepare/0"]))
    name = next(x for x in sorted(begun.state.open) if x.startswith("label/"))
    command = begun.state.open[name]
    for attempt in range(1, ATTEMPTS):
        assert begun.turn(e.TaskLost(name, attempt, "killed")) == (command,)
        assert begun.state.open[name] is command
    assert begun.turn(e.TaskLost(name, ATTEMPTS, "killed")) == ()
    assert name not in begun.state.open
    begun.play()
    assert begun.state.finished
    train = begun.asked(Train)[0]
    assert command.frame.id not in (
        train.cheap if command.fidelity == "cheap" else train.expensive
    )


def test_the_last_label_of_a_step_may_be_forsaken(world):
    begun = world.game()
    begun.play(
        lambda g: len(g.state.open) == 1 and g.state.seeds, choose=lambda n: n - 1
    )
    (name,) = begun.state.open
    for attempt in range(1, ATTEMPTS + 1):
        commands = begun.turn(e.TaskLost(name, attempt, "killed"))
    assert [type(command) for command in commands] == [Train, Price]


@pytest.mark.parametrize("stage", ["seed", "train", "explore"])
def test_other_tasks_lost_too_often_stop_the_campaign_until_it_is_run_again(
    world, stage
):
    begun = world.game().to(stage)
    name, command = next(iter(begun.state.open.items()))
    for attempt in range(1, ATTEMPTS + 1):
        commands = begun.turn(e.TaskLost(name, attempt, "ValueError: odd"))
    assert [type(x) for x in commands] == [Stop]
    assert begun.state.finished == (
        f"{name} was tried 3 times and failed: ValueError: odd"
    )
    assert begun.state.open[name] is command
    assert begun.turn(e.Amended("")) == ()
    assert begun.state.attempts == {}
    assert not begun.state.finished
    assert begun.play().state.labels.used("expensive") == 12


def test_a_late_loss_of_an_answered_task_changes_nothing(world):
    begun = world.game()
    begun.turn(world.answer(begun.state.open["prepare/0"]))
    before = begun.state
    assert begun.turn(e.TaskLost("prepare/0", ATTEMPTS, "late")) == ()
    assert world.same(begun.state, before)


def test_after_its_end_a_campaign_asks_for_nothing(world):
    begun = world.game().play()
    assert begun.turn(e.Excluded("0" * 32, None, "odd")) == ()


def test_a_larger_budget_lets_a_finished_campaign_go_on(world):
    begun = world.game().play()
    generation = begun.state.generations.count
    begun.rules = replace(world.RULES, budget=Budget(cheap=40, expensive=20))
    commands = begun.turn(e.Amended("budget: more", ("budget",)))
    assert {type(command) for command in commands} == {Explore}
    begun.play()
    assert begun.state.labels.used("expensive") == 20
    assert begun.state.generations.count > generation


def test_the_same_rules_again_end_a_finished_campaign_at_once(world):
    begun = world.game().play()
    (stop,) = begun.turn(e.Amended(""))
    assert stop.reason == "the budget of expensive labels is spent"


def test_excluded_labels_leave_the_next_training(world):
    begun = world.game().to("explore")
    (train,) = begun.asked(Train)
    begun.turn(e.Excluded(train.expensive[0], "expensive", "looks odd"))
    begun.turn(e.Excluded(train.cheap[1], None, "looks odd"))
    begun.turn(e.Excluded(train.test[0], None, "looks odd"))
    begun.to("train")
    later = begun.asked(Train)[-1]
    assert train.expensive[0] not in later.expensive
    assert train.cheap[1] not in {*later.cheap, *later.expensive}
    assert later.test == train.test[1:]
    if train.expensive[0] in train.cheap:
        assert train.expensive[0] in later.cheap


def test_each_generation_learns_from_the_one_before(world):
    begun = world.game().play()
    parents = [train.parent for train in begun.asked(Train)]
    models = [t.event.model for t in begun.turns if isinstance(t.event, e.Trained)]
    assert parents == [None, *models[:-1]]


def test_a_model_that_the_user_supplied_is_the_first_parent(world):
    begun = world.game(model="a" * 32).to("train")
    assert begun.asked(Train)[0].parent == "a" * 32


def test_with_labels_and_a_test_set_given_training_comes_first(world):
    supplied = (
        *(world.given(f"c{i}", "cheap") for i in range(4)),
        *(world.given(f"x{i}", "expensive") for i in range(2)),
        *(world.given(f"t{i}", "expensive", test=True) for i in range(3)),
    )
    begun = world.Game()
    train, price = begun.turn(world.opened(given=supplied))
    assert isinstance(train, Train)
    assert price == Price(train.generation)
    assert (len(train.cheap), len(train.expensive), len(train.test)) == (4, 2, 3)
    assert begun.state.labels.used("cheap") == begun.state.labels.used("expensive") == 0
    begun.play()
    assert begun.state.labels.used("expensive") == 12
    walkers = begun.asked(Explore)[0].walkers
    known = {item.frame for item in supplied if not item.test}
    assert {walker.frame for walker in walkers} <= known


def test_with_labels_given_only_the_test_set_is_made(world):
    supplied = (world.given("c", "cheap"), world.given("x", "expensive"))
    begun = world.game(given=supplied).to("train")
    assert {x.purpose for x in begun.asked(LabelFrame)} == {"test"}


@pytest.mark.parametrize(
    ("supplied", "missing"), [("cheap", "expensive"), ("expensive", "cheap")]
)
def test_a_fidelity_of_which_nothing_was_given_gets_seeds(world, supplied, missing):
    items = (
        world.given("a", supplied),
        *(world.given(f"t{i}", "expensive", test=True) for i in range(3)),
    )
    begun = world.game(given=items).to("train")
    asked = begun.asked(LabelFrame)
    assert {(x.fidelity, x.purpose) for x in asked} == {(missing, "seed")}
    (train,) = begun.asked(Train)
    assert train.cheap
    assert train.expensive


def test_without_any_expensive_label_the_campaign_says_so(world):
    def reply(command):
        if isinstance(command, LabelFrame) and command.fidelity == "expensive":
            return world.failed(command)
        return world.answer(command)

    begun = world.game(reply=reply).play()
    assert begun.state.finished == (
        "no expensive label succeeded: `alloop log` tells why"
    )


def test_cheap_labels_that_fail_do_not_stop_the_campaign(world):
    def reply(command):
        if isinstance(command, LabelFrame) and command.fidelity == "cheap":
            return world.failed(command)
        return world.answer(command)

    begun = world.game(reply=reply).play()
    assert begun.state.labels.used("expensive") == 12
    assert begun.asked(Train)[-1].cheap == ()


def test_an_exploration_that_finds_nothing_ends_the_campaign(world):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Explored):
            return replace(event, candidates=(), controls=())
        return event

    begun = world.game(reply=reply).play()
    assert begun.state.finished == "nothing is left to label or to learn"


def test_sampling_that_gives_no_frame_leaves_no_gap(world):
    def reply(command):
        event = world.answer(command)
        return replace(event, frames=()) if isinstance(event, e.Sampled) else event

    begun = world.game(reply=reply).to("train")
    assert begun.asked(Train)[0].test == ()


def test_more_walkers_join_where_the_rules_allow_more(world):
    begun = world.game().to("train", generation=1)
    begun.rules = replace(world.RULES, exploring=ExploreRules(6, 25, 3, 10))
    begun.to("explore")
    batches = [[w.index for w in x.walkers] for x in begun.state.open.values()]
    assert batches == [[0, 1, 2], [3, 4, 5]]
    fresh = {w.index: w.step for x in begun.state.open.values() for w in x.walkers}
    assert [fresh[i] for i in range(6)] == [25, 25, 25, 25, 0, 0]


def outcome(game):
    """All that a campaign decided, whatever the order in which it came about."""
    commands = [x for turn in game.turns for x in turn.commands]
    asked = {x.name: getattr(x, "reason", None) for x in commands}
    trains = {
        x.name: (x.cheap, x.expensive, x.test, x.parent) for x in game.asked(Train)
    }
    rechecks = sorted(x.name for x in game.asked(Recheck))
    end = (
        game.state.generations.model,
        game.state.generations.errors,
        game.state.finished,
    )
    return asked, trains, set(rechecks), end


@pytest.mark.parametrize("selection", ["flagged", "random"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_order_of_arrival_changes_nothing(world, selection, data):
    rules = replace(world.RULES, selection=selection, recheck=NOISE)
    ordered = world.game(rules, molecules=2).play()
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    shuffled = world.game(rules, molecules=2).play(choose=lambda n: rng.integers(n))
    assert outcome(shuffled) == outcome(ordered)
    for index, walker in ordered.state.exploration.walkers.items():
        assert world.same(shuffled.state.exploration.walkers[index], walker)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_lost_tasks_and_restarts_change_nothing(world, seed):
    """Any task may be lost twice, and the driver may begin again at any time."""
    rng = np.random.default_rng(seed)
    rules = replace(world.RULES, recheck=NOISE)
    calm = world.game(rules).play()
    rough = world.game(rules)
    while rough.state.open:
        pending = [rough.state.open[name] for name in sorted(rough.state.open)]
        command = pending[rng.integers(len(pending))]
        tried = rough.state.attempts.get(command.name, 0)
        if tried < ATTEMPTS - 1 and rng.random() < 0.2:
            rough.turn(e.TaskLost(command.name, tried + 1, "killed"))
        elif rng.random() < 0.05:
            assert rough.turn(e.Amended("")) == ()
        else:
            rough.turn(world.answer(command))
    assert outcome(rough) == outcome(calm)


def test_pieces_of_a_round_may_change_size_between_two_runs(world):
    begun = world.game().to("explore")
    begun.rules = replace(world.RULES, exploring=ExploreRules(4, 25, 2, 25))
    begun.play()
    assert begun.state.labels.used("expensive") == 12


def test_stopping_rules_are_asked_after_each_training(world):
    early = replace(world.RULES, stopping=StopRules(rounds=1))
    begun = world.game(early).play()
    assert begun.state.exploration.round == 1
    assert begun.state.generations.count == 2
    assert begun.state.finished == "the limit of 1 round is reached"


def test_a_walker_keeps_its_random_start_whatever_the_others_do(world):
    few = replace(world.RULES, exploring=ExploreRules(2, 25, 2, 10))
    narrow = {
        w.index: w for w in world.game(few).to("explore").asked(Explore)[0].walkers
    }
    wide = {
        w.index: w for x in world.game().to("explore").asked(Explore) for w in x.walkers
    }
    assert isinstance(wide[1], Walker)
    assert all(world.same(narrow[i], wide[i]) for i in narrow)


def test_held_out_frames_are_first_ones_and_never_change_side(world):
    rules = replace(
        world.RULES,
        seeding=SeedRules(cheap=40, expensive=3, validation=4, per_walker=2),
        budget=Budget(cheap=60, expensive=12),
        heldout=0.4,
    )
    begun = world.game(rules=rules)
    begun.play(lambda g: g.state.finished)
    trains = begun.asked(Train)
    assert len(trains) >= 2
    assert len(trains[0].heldout) >= 8
    assert all(train.heldout == trains[0].heldout for train in trains)
    for train in trains:
        assert not set(train.heldout) & {*train.cheap, *train.expensive}
    seeds = ids(begun.asked(LabelFrame, purpose="seed"))
    assert set(trains[0].heldout) <= set(seeds)


def test_too_few_frames_to_calibrate_on_are_not_held_out(world):
    begun = world.game().to("train")
    (train,) = begun.asked(Train)
    assert train.heldout == ()


def test_labels_with_an_excluded_doubt_are_never_learned_from(world):
    """Every third label is doubted: a change of the verdict counts from the next
    training on."""

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Labelled) and int(event.label.frame, 16) % 3 == 0:
            details = {"doubts": doubts_to_text([Doubt.MULTIREFERENCE])}
            return replace(event, label=replace(event.label, details=details))
        return event

    strict = {fidelity: {Doubt.MULTIREFERENCE: "exclude"} for fidelity in world.LEVELS}
    begun = world.game(replace(world.RULES, doubts=strict), reply=reply).play()
    doubted = {entry.frame for entry in begun.state.labels.entries() if entry.doubts}
    learned = [
        {*x.cheap, *x.expensive, *x.test, *x.heldout} for x in begun.asked(Train)
    ]
    assert doubted
    assert learned
    assert not any(doubted & frames for frames in learned)
    assert not doubted & set(ids(begun.asked(LabelFrame, purpose="bias")))
    mild = {"expensive": {Doubt.MULTIREFERENCE: "flag"}}
    begun.rules = replace(world.RULES, doubts=mild, budget=Budget(40, 16))
    begun.turn(e.Amended(""))
    begun.play()
    again = begun.asked(Train)[-1]
    assert doubted & set(again.test)
    assert doubted & set(again.expensive)


def test_another_doubt_or_another_fidelity_bars_nothing(world):
    rules = replace(world.RULES, doubts={"cheap": {Doubt.INSTABILITY: "exclude"}})
    assert rules.barred_doubts("cheap") == {Doubt.INSTABILITY}
    assert rules.barred_doubts("expensive") == frozenset()
    doubted = LabelState(
        "f", "cheap", "seed", 0, True, 1.0, None, {Doubt.CONTAMINATION}
    )
    state = LoopState(labels=CampaignLabels(recent=(doubted,)))
    assert state.labels.trained_on("cheap", rules.barred_doubts("cheap")) == ("f",)


def test_cpu_hours_are_not_overshot_by_a_round_and_their_end_has_its_reason(world):
    """Labels cost 1 s and 20 s here; seeds and test set cost 146 s, a round 84 s."""

    def reply(command):
        if isinstance(command, Price):
            levels = world.LEVELS.values()
            prices = zip(levels, (1.0, 20.0), strict=True)
            costs = {level: world.cost(level, seconds) for level, seconds in prices}
            return e.Priced(command.name, costs)
        return world.answer(command)

    for seconds in (160.0, 200.0, 240.0, 300.0):
        budget = Budget(cheap=20, expensive=12, cpu_hours=seconds / 3600)
        rules = replace(world.RULES, budget=budget)
        begun = world.game(rules, reply=reply).play()
        assert begun.state.labels.cpu_seconds() <= seconds
        assert begun.state.labels.cpu_seconds() > seconds - 2 * 26.0
        assert "CPU hours" in begun.state.finished
