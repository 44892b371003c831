"""Whom to label, and how many."""

from dataclasses import replace

import numpy as np
import pytest

from alloop.core.records import Walker
from alloop.loop import events as e
from alloop.loop.label_choice import (
    RoundQuotas,
    biased_frames,
    control_frames,
    flagged_frames,
)
from alloop.loop.rules import Budget
from alloop.loop.state import (
    CampaignLabels,
    ExplorationState,
    LabelState,
    LoopState,
    label_blocks,
)


@pytest.fixture
def pool(world):
    """Eight candidates and eight control frames of two explorations."""
    walker = Walker(0, 0, world.frame("w"), world.still())
    make = [world.candidate(f"c{i}", walker) for i in range(8)]
    rest = [world.candidate(f"r{i}", walker, "control") for i in range(8)]
    return make, rest


@pytest.fixture
def state(pool):
    make, rest = pool
    found = {
        event.name: event
        for event in (
            e.Explored(1, 0, 0, (), tuple(make[:4]), tuple(rest[:4]), scored=0),
            e.Explored(1, 1, 0, (), tuple(make[4:]), tuple(rest[4:]), scored=0),
        )
    }
    return LoopState(
        stage="explore",
        seed=7,
        exploration=ExplorationState(pieces=found, round=1, threshold=0.5),
    )


def entry(frame, fidelity="cheap", purpose="flagged", **facts):
    facts = {"good": True, "cpu_seconds": 1.0, "molecule": 0} | facts
    return LabelState(frame=frame.id, fidelity=fidelity, purpose=purpose, **facts)


def spent(frames, fidelity, count):
    return tuple(entry(frames(f"{fidelity}{i}"), fidelity) for i in range(count))


@pytest.mark.parametrize(
    ("cheap", "expensive", "expected"),
    [
        (0, 0, RoundQuotas(20 // 3 - 1, 3, 1)),
        (6, 4, RoundQuotas(14 // 2 - 1, 3, 1)),
        (20, 4, RoundQuotas(0, 3, 1)),
        (14, 10, RoundQuotas(6 - 1, 1, 1)),
        (20, 12, RoundQuotas(0, 0, 0)),
    ],
)
def test_what_is_left_is_dealt_out_to_the_rounds_that_are_left(
    world, cheap, expensive, expected
):
    blocks = label_blocks(
        (
            spent(world.frame, "cheap", cheap),
            spent(world.frame, "expensive", expensive),
        )
    )
    assert (
        RoundQuotas.from_state(
            LoopState(labels=CampaignLabels(blocks=blocks)), world.RULES
        )
        == expected
    )


def test_labels_of_the_open_step_do_not_change_its_quotas(world, state):
    fresh = RoundQuotas.from_state(state, world.RULES)
    recent = (
        *spent(world.frame, "cheap", 4),
        *spent(world.frame, "expensive", 2),
    )
    during = replace(state, stage="flag", labels=replace(state.labels, recent=recent))
    assert RoundQuotas.from_state(during, world.RULES) == fresh


def test_quotas_do_not_look_at_labels_of_closed_steps(world, monkeypatch):
    block = (*spent(world.frame, "cheap", 6), *spent(world.frame, "expensive", 4))
    state = LoopState(labels=CampaignLabels(blocks=label_blocks((block,))))
    hours = replace(world.RULES.budget, cpu_hours=1e3)
    expected = RoundQuotas.from_state(state, world.RULES)
    monkeypatch.setattr(
        CampaignLabels, "entries", lambda _: pytest.fail("walks all labels")
    )
    assert RoundQuotas.from_state(state, world.RULES) == expected
    assert RoundQuotas.from_state(state, replace(world.RULES, budget=hours)) == expected


def test_a_budget_that_shrank_below_what_is_spent_leaves_nothing(world):
    state = LoopState(
        labels=CampaignLabels(
            blocks=label_blocks((spent(world.frame, "expensive", 12),))
        )
    )
    small = replace(world.RULES, budget=Budget(cheap=20, expensive=5))
    picks = RoundQuotas.from_state(state, small)
    assert (picks.expensive, picks.controls) == (0, 0)


def test_control_frames_are_a_draw_that_surprise_does_not_bend(world, state, pool):
    drawn = control_frames(state, 3)
    flat = {
        name: replace(
            found,
            candidates=tuple(replace(x, surprise=0.0) for x in found.candidates),
            controls=tuple(replace(x, surprise=0.0) for x in found.controls),
        )
        for name, found in state.exploration.pieces.items()
    }
    again = control_frames(
        replace(state, exploration=replace(state.exploration, pieces=flat)), 3
    )
    assert [x.frame for x in again] == [x.frame for x in drawn]
    assert {x.frame for x in drawn} <= {x.frame for x in pool[1]}
    assert len({x.frame for x in drawn}) == 3


def test_other_rounds_draw_other_control_frames(state):
    draws = [
        tuple(
            x.frame.id
            for x in control_frames(
                replace(state, exploration=replace(state.exploration, round=n)), 3
            )
        )
        for n in range(6)
    ]
    assert len(set(draws)) > 1


def test_every_control_frame_may_be_drawn(state, pool):
    seen = set()
    for number in range(60):
        seen |= {
            x.frame
            for x in control_frames(
                replace(state, exploration=replace(state.exploration, round=number)), 3
            )
        }
    assert seen == {x.frame for x in pool[1]}


@pytest.mark.parametrize("selection", ["flagged", "random"])
def test_the_order_in_which_explorations_came_does_not_count(world, state, selection):
    rules = replace(world.RULES, selection=selection)
    turned = replace(
        state,
        exploration=replace(
            state.exploration, pieces=dict(reversed(state.exploration.pieces.items()))
        ),
    )
    assert flagged_frames(turned, rules, 4, ()) == flagged_frames(state, rules, 4, ())
    assert control_frames(turned, 4) == control_frames(state, 4)


def test_frames_that_have_a_label_are_not_flagged_again(world, state, pool):
    known = pool[0][0]
    labelled = replace(
        state,
        labels=replace(state.labels, blocks=label_blocks(((entry(known.frame),),))),
    )
    chosen = flagged_frames(labelled, world.RULES, 8, {pool[0][1].frame.id})
    ids = {x.frame.id for x, _ in chosen}
    assert known.frame.id not in ids
    assert pool[0][1].frame.id not in ids
    assert len(ids) == 6


def test_reasons_tell_surprise_from_filling_up(world, state):
    chosen = flagged_frames(state, world.RULES, 8, ())
    for candidate, why in chosen:
        said = "above 0.50" if candidate.surprise > 0.5 else "among the largest"
        assert said in why
    surprises = [candidate.surprise > 0.5 for candidate, _ in chosen]
    assert surprises == sorted(surprises, reverse=True)


def test_bias_ranks_the_frames_with_good_cheap_labels(world, state, pool):
    """All descriptors equally far apart: the largest bias comes first."""
    apart = np.eye(8)
    found = {
        name: replace(
            each,
            candidates=tuple(
                replace(x, descriptor=apart[4 * k + i])
                for i, x in enumerate(each.candidates)
            ),
        )
        for k, (name, each) in enumerate(state.exploration.pieces.items())
    }
    recent = tuple(
        entry(x.frame, bias=0.1 * (i + 1), good=i != 7) for i, x in enumerate(pool[0])
    )
    flag = replace(
        state,
        stage="flag",
        exploration=replace(state.exploration, pieces=found),
        labels=replace(state.labels, recent=recent),
    )
    chosen = biased_frames(flag, replace(world.RULES, triage="bias"), 3)
    assert [x.frame for x, _ in chosen] == [pool[0][i].frame for i in (6, 5, 4)]
    by_surprise = biased_frames(flag, replace(world.RULES, triage="surprise"), 2)
    ranked = sorted(pool[0][:7], key=lambda x: x.surprise, reverse=True)
    assert [x.frame for x, _ in by_surprise] == [x.frame for x in ranked[:2]]
    assert chosen[0][1] == "bias 0.700 eV/Å against the cheap label"


def test_control_frames_and_excluded_ones_have_no_part_in_bias(world, state, pool):
    frames = [x.frame for x in pool[0]]
    recent = (
        entry(frames[0], bias=9.0, purpose="control"),
        entry(frames[1], bias=5.0),
        entry(frames[2], bias=0.1),
    )
    excluded = frozenset({(frames[1].id, "expensive")})
    flag = replace(
        state,
        stage="flag",
        labels=replace(state.labels, recent=recent, excluded=excluded),
    )
    assert [x.frame for x, _ in biased_frames(flag, world.RULES, 3)] == [frames[2]]


def test_random_selection_does_not_look_at_the_bias(world, state, pool):
    blind = replace(world.RULES, selection="random")

    def chosen(scale):
        recent = tuple(
            entry(x.frame, bias=scale * (i + 1)) for i, x in enumerate(pool[1])
        )
        flag = replace(state, stage="flag", labels=replace(state.labels, recent=recent))
        return [x.frame for x, _ in biased_frames(flag, blind, 3)]

    assert chosen(0.1) == chosen(-0.1)
    assert len(chosen(0.1)) == 3


def test_a_round_asks_for_no_more_than_the_cpu_hours_left_pay_for(world):
    start = (world.frame("start"),)
    prices = {"cheap": 1.0, "expensive": 20.0}
    costs = {world.LEVELS[x]: world.cost(world.LEVELS[x], s) for x, s in prices.items()}
    state = LoopState(
        levels=world.LEVELS, start=start, labels=CampaignLabels(costs=costs)
    )
    for seconds in (0.0, 19.0, 45.0, 70.0, 87.0, 1000.0):
        budget = Budget(cheap=20, expensive=12, cpu_hours=seconds / 3600)
        picks = RoundQuotas.from_state(state, replace(world.RULES, budget=budget))
        cheap, expensive = (
            picks.cheap + picks.controls,
            picks.expensive + picks.controls,
        )
        assert cheap * 1.0 + expensive * 20.0 <= seconds
        if seconds >= 87.0:  # 6 cheap labels and 4 expensive ones
            assert picks == RoundQuotas(20 // 3 - 1, 3, 1)
    spent = replace(
        state,
        labels=replace(
            state.labels, blocks=label_blocks((spent_on(world.frame, 5, 10.0),))
        ),
    )
    budget = Budget(cheap=20, expensive=12, cpu_hours=100.0 / 3600)
    assert (
        RoundQuotas.from_state(spent, replace(world.RULES, budget=budget)).expensive
        == 1
    )
    unpriced = replace(spent, labels=replace(spent.labels, costs={}))
    assert (
        RoundQuotas.from_state(unpriced, replace(world.RULES, budget=budget)).expensive
        == 3
    )


def spent_on(frames, count, seconds):
    return tuple(
        entry(frames(f"t{i}"), "expensive", "test", cpu_seconds=seconds)
        for i in range(count)
    )
