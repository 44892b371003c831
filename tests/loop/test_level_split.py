"""The split of a budget of money between the levels, by what labels gain."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Price, Train, TrainPart
from alloop.loop.level_gains import PARTS, level_gains, part_commands
from alloop.loop.level_split import (
    alone_is_better,
    cheap_is_idle,
    cheap_share,
    no_more_cheap,
    round_counts,
)
from alloop.loop.reducer import ATTEMPTS
from alloop.loop.rules import Budget, SeedRules, SplitRules
from alloop.loop.state import (
    CampaignLabels,
    Generations,
    LabelState,
    LoopState,
    PartErrors,
)
from alloop.loop.stopping import labels_left

COSTS = {"c" * 16: 1.0, "e" * 16: 20.0}


@pytest.fixture(scope="module")
def rules(world):
    return replace(
        world.RULES,
        budget=Budget(cheap=60, expensive=24),
        seeding=SeedRules(cheap=12, expensive=8, validation=6, per_walker=2),
        every=4,
        split=SplitRules(),
    )


def priced(world, powers, ratio=5.0):
    """Answers of a world where errors are powers of the two counts."""

    def reply(command):
        if isinstance(command, TrainPart):
            errors = world.part_errors(command, powers=powers)
            return e.PartTrained(command.generation, command.part, errors)
        if isinstance(command, Price):
            seconds = {"c" * 16: 1.0, "e" * 16: ratio}
            costs = {level: world.cost(level, x) for level, x in seconds.items()}
            return e.Priced(command.name, costs)
        return world.answer(command)

    return reply


def measured(world, cheap, expensive, *, generations=2, alone=0.5, factor=2.0):
    """A state with short trainings whose errors are powers of the counts.

    alone: the exponent of expensive labels alone; factor: by which they err more now.
    """
    rng = np.random.default_rng(0)
    parts = {}
    for number in range(1, generations + 1):
        counts = {name: (100 * c, 40 * x) for name, (c, x) in PARTS.items()}
        shape = rng.uniform(0.5, 1.5, 30)
        parts[number] = {
            name: PartErrors(
                int(c), int(x), shape * level(c, x, cheap, expensive, alone, factor)
            )
            for name, (c, x) in counts.items()
        }
    start = (world.frame("start"),)
    costs = {level: world.cost(level, x) for level, x in COSTS.items()}
    return LoopState(
        start=start,
        levels=world.LEVELS,
        labels=CampaignLabels(costs=costs),
        generations=Generations(part_errors=parts),
    )


def level(c, x, cheap, expensive, alone, factor):
    if not c:
        return factor * (x / 40) ** -alone
    return (c / 100) ** -cheap * (x / 40) ** -expensive


def test_exponents_and_the_advantage_are_those_that_errors_were_made_from(world):
    gains = level_gains(measured(world, 0.2, 0.4, alone=0.5, factor=3.0))
    assert gains.cheap.value == pytest.approx(0.2)
    assert gains.expensive.value == pytest.approx(0.4)
    assert gains.alone.value == pytest.approx(0.5)
    # 100 cheap labels are worth 5 expensive ones beside 40.
    assert gains.advantage.value == pytest.approx(log(3) - 0.5 * log(1 + 5 / 40))
    assert cheap_share(gains) == pytest.approx(1 / 3)
    assert (gains.generation, gains.measured) == (2, 2)


@pytest.mark.parametrize(
    "error",
    [lambda n, m: 2 * n**-0.3 + m**-0.6, lambda n, m: n**-0.3 * m**-0.6],
    ids=["sum", "product"],
)
def test_the_error_is_least_where_money_is_shared_as_the_exponents(error):
    share = np.linspace(0.01, 0.99, 9801)  # of a unit of money, prices 1
    best = share[np.argmin(error(share, 1 - share))]
    here = log(error(best, 1 - best))
    cheap = here - log(error(best * np.exp(1e-6), 1 - best))
    expensive = here - log(error(best, (1 - best) * np.exp(1e-6)))
    assert best == pytest.approx(cheap / (cheap + expensive), abs=1e-3)


def test_the_standard_error_is_that_of_resampled_frames(world):
    rng = np.random.default_rng(5)
    first, second = rng.gamma(2.0, 1.0, (2, 200))
    state = measured(world, 0, 0, generations=1)
    parts = {
        n: replace(x, errors=second)
        for n, x in state.generations.part_errors[1].items()
    }
    parts["few-cheap"] = replace(parts["few-cheap"], errors=first)
    state = replace(
        state, generations=replace(state.generations, part_errors={1: parts})
    )
    draws = rng.integers(200, size=(4000, 200))
    ratios = np.log(first[draws].mean(axis=1) / second[draws].mean(axis=1)) / log(4)
    assert level_gains(state).cheap.error == pytest.approx(ratios.std(), rel=0.05)


def test_cheap_labels_that_gain_nothing_are_given_up_when_measured_twice(world, rules):
    once = measured(world, -0.1, 0.4, generations=1)
    twice = measured(world, -0.1, 0.4)
    assert not no_more_cheap(once, rules)
    assert no_more_cheap(twice, rules)
    assert cheap_is_idle(level_gains(twice))
    assert round_counts(twice, rules, 12, 8).cheap == 0
    assert not no_more_cheap(twice, replace(rules, split=None))


def test_cheap_labels_whose_money_expensive_ones_would_use_better_are_given_up(
    world, rules
):
    dear = measured(world, 0.2, 0.4, alone=0.8, factor=1.2)
    costs = {x: world.cost(x, s) for x, s in zip(COSTS, (10.0, 20.0), strict=True)}
    assert not no_more_cheap(dear, rules)
    dear = replace(dear, labels=replace(dear.labels, costs=costs))
    assert alone_is_better(level_gains(dear))
    assert no_more_cheap(dear, rules)


@settings(max_examples=60, deadline=None)
@given(
    cheap=st.floats(-0.3, 1.0),
    expensive=st.floats(-0.3, 1.0),
    used=st.tuples(st.integers(0, 120), st.integers(0, 24)),
    generations=st.integers(0, 3),
    price=st.floats(0.5, 500.0),
)
def test_a_round_never_costs_more_than_is_left_and_keeps_the_floors(
    world, rules, cheap, expensive, used, generations, price
):
    state = measured(world, cheap, expensive, generations=generations)
    costs = {x: world.cost(x, s) for x, s in zip(COSTS, (1.0, price), strict=True)}
    state = replace(state, labels=replace(state.labels, costs=costs))
    left = 60 + 24 * price - used[0] - used[1] * price
    counts = round_counts(state, rules, *used)
    if left < 0:
        assert (counts.cheap, counts.expensive) == (0, 0)
        return
    paid = counts.cheap + counts.expensive * price
    assert paid <= left * (1 + 1e-9)
    assert counts.expensive >= (left >= price)
    money = left / max(1, np.ceil(left / (48 + 16 * price) * 4 - 1e-9))
    gains = level_gains(state)
    if gains is None or cheap_share(gains) is None:
        return
    if no_more_cheap(state, rules):
        assert counts.cheap == 0
    elif money >= 10 * max(price, 1.0):  # else a label is more than its share
        assert counts.cheap + 1 >= 0.1 * money
        assert counts.expensive * price + price >= 0.1 * money


def spent(game):
    state = game.state
    return {f: state.labels.used(f) for f in ("cheap", "expensive")}


@pytest.mark.parametrize(
    ("powers", "more_cheap"), [((0.6, 0.2), True), ((0.05, 0.6), False)]
)
def test_money_moves_to_the_level_that_gains_and_is_all_spent(
    world, rules, powers, more_cheap
):
    game = world.game(rules, reply=priced(world, powers)).play()
    used = spent(game)
    assert (used["cheap"] > 60) is more_cheap
    money = used["cheap"] + 5 * used["expensive"]
    assert 180 - 5 < money <= 180
    assert game.state.finished.startswith("the budget is spent")
    # as many rounds as the counts would give, one more where frames were too few
    assert len(game.asked(Train)) in (5, 6)


def test_no_part_learns_from_a_judged_frame_and_halves_are_nested(world, rules):
    game = world.game(rules, reply=priced(world, (0.3, 0.3))).play()
    found = game.asked(TrainPart)
    assert len(found) == 5 * len(game.asked(Train))
    tests = {x.frame.id for x in game.asked(LabelFrame, purpose="test")}
    before = {}
    for part in found:
        assert tests <= set(part.judged)
        assert not set(part.judged) & {*part.cheap, *part.expensive}
        whole = before.setdefault(part.generation, part)
        assert whole.part == "all"
        assert set(part.cheap) <= set(whole.cheap)
        assert set(part.expensive) <= set(whole.expensive)
        share = PARTS[part.part]
        assert len(part.cheap) == np.ceil(share[0] * len(whole.cheap))
        assert len(part.expensive) == np.ceil(share[1] * len(whole.expensive))


def test_nothing_is_measured_with_a_fixed_split_or_a_single_level(world, rules):
    fixed = world.game(replace(rules, split=None)).play()
    single = replace(
        rules, budget=Budget(0, 20), seeding=replace(rules.seeding, cheap=0)
    )
    assert fixed.asked(TrainPart) == world.game(single).play().asked(TrainPart) == []


def test_every_second_generation_is_measured_where_that_is_asked(world, rules):
    rarely = replace(rules, split=SplitRules(every=2))
    game = world.game(rarely, reply=priced(world, (0.3, 0.3))).play()
    assert {x.generation for x in game.asked(TrainPart)} - {6} == {2, 4}


def test_a_lost_part_leaves_the_split_as_it_was(world, rules):
    game = world.game(rules, reply=priced(world, (0.3, 0.3))).to("train")
    name = "part/1/few-cheap"
    for attempt in range(1, ATTEMPTS + 1):
        assert name in game.state.open
        game.turn(e.TaskLost(name, attempt, "gone"))
    assert name not in game.state.open
    game.to("explore")
    assert game.asked(Explore)
    assert level_gains(game.state) is None


def test_a_round_waits_for_the_parts_even_where_it_does_not_wait_for_trainings(
    world, rules
):
    game = world.game(
        replace(rules, staleness=1), reply=priced(world, (0.3, 0.3))
    ).play(lambda g: any(isinstance(x, Explore) for x in g.state.open.values()))
    assert not any(isinstance(x, TrainPart) for x in game.state.open.values())
    assert set(game.state.generations.part_errors[1]) == set(PARTS)


@pytest.mark.parametrize("staleness", [0, 1])
def test_the_order_of_answers_has_no_effect_on_the_split(world, rules, staleness):
    rules = replace(rules, staleness=staleness)
    labels = []
    for pick in (lambda _: 0, lambda n: n - 1):
        game = world.game(rules, reply=priced(world, (0.5, 0.2))).play(choose=pick)
        labels.append(
            {(x.frame.id, x.fidelity, x.purpose) for x in game.asked(LabelFrame)}
        )
    assert labels[0] == labels[1]


def test_without_cheap_labels_control_frames_and_flagged_ones_are_expensive(
    world, rules
):
    game = world.game(rules, reply=priced(world, (-0.2, 0.5))).play()
    late = [
        x
        for turn in game.turns
        if isinstance(turn.event, e.Explored) and turn.event.round == 4
        for x in turn.commands
        if isinstance(x, LabelFrame)
    ]
    assert late
    assert {x.fidelity for x in late} == {"expensive"}
    assert {x.purpose for x in late} == {"control", "flagged"}


def test_labels_left_are_what_the_money_left_buys(world, rules):
    state = measured(world, 0.3, 0.3)
    bought = LabelState("f", "expensive", "flagged", 0, True, 1.0)
    state = replace(state, labels=replace(state.labels, recent=(bought,) * 26))
    assert labels_left(state, rules, "cheap") == 540 - 520
    assert labels_left(state, rules, "expensive") == 1
    assert part_commands(state, replace(rules, split=None)) == ()
