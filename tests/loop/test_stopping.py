"""When a campaign is done."""

from dataclasses import replace

import pytest

from alloop.loop.rules import Budget, StopRules
from alloop.loop.state import (
    CampaignLabels,
    ExplorationState,
    Generations,
    LabelState,
    LoopState,
    label_blocks,
)
from alloop.loop.stopping import labels_left, reason_to_stop


def entries(count, fidelity="expensive", purpose="flagged", cost=0.0, good=True):
    return tuple(
        LabelState(f"{purpose}{fidelity}{i}", fidelity, purpose, 0, good, cost)
        for i in range(count)
    )


@pytest.fixture
def stops(world):
    def ask(state, budget=world.RULES.budget, **stopping):
        rules = replace(world.RULES, budget=budget, stopping=StopRules(**stopping))
        return reason_to_stop(state, rules)

    return ask


def test_without_a_reason_a_campaign_goes_on(stops):
    assert stops(LoopState(generations=Generations(errors=(0.3, 0.2)))) is None


def test_test_and_given_labels_are_not_paid_from_the_budget(world):
    state = LoopState(
        labels=CampaignLabels(
            blocks=label_blocks(
                (entries(5, purpose="test"), entries(5, purpose="given"), entries(2))
            )
        )
    )
    assert labels_left(state, world.RULES, "expensive") == 10


def test_failed_labels_are_paid_from_the_budget(world):
    assert (
        labels_left(
            LoopState(labels=CampaignLabels(recent=entries(3, good=False))),
            world.RULES,
            "expensive",
        )
        == 9
    )


def test_the_budget_of_expensive_labels_ends_a_campaign(stops):
    assert stops(LoopState(labels=CampaignLabels(recent=entries(11)))) is None
    spent = stops(LoopState(labels=CampaignLabels(recent=entries(12))))
    assert spent == "the budget of expensive labels is spent"
    assert stops(LoopState(labels=CampaignLabels(recent=entries(13)))) == spent


def test_the_budget_of_cheap_labels_does_not(stops):
    assert stops(LoopState(labels=CampaignLabels(recent=entries(30, "cheap")))) is None


def test_cpu_hours_count_labels_of_both_levels_and_of_the_test_set(stops):
    state = LoopState(
        labels=CampaignLabels(
            blocks=label_blocks(
                (
                    entries(2, "cheap", cost=600.0),
                    entries(3, purpose="test", cost=800.0),
                )
            )
        )
    )
    one = Budget(cheap=20, expensive=12, cpu_hours=1.0)
    assert stops(state, one) == "the budget of 1 CPU h for labels is spent"
    assert stops(state, replace(one, cpu_hours=1.1)) is None


def test_rounds_end_a_campaign(stops):
    assert stops(LoopState(exploration=ExplorationState(round=2)), rounds=3) is None
    assert (
        stops(LoopState(exploration=ExplorationState(round=3)), rounds=3)
        == "the limit of 3 rounds is reached"
    )


def test_the_target_is_asked_of_the_last_error(stops):
    assert (
        stops(LoopState(generations=Generations(errors=(0.01, 0.2))), target=0.02)
        is None
    )
    assert stops(
        LoopState(generations=Generations(errors=(0.2, 0.02))), target=0.02
    ) == ("the target is met: 20.0 meV/Å on the validation set, 20.0 asked for")


@pytest.mark.parametrize(
    ("errors", "flat"),
    [
        ((), False),
        ((0.30,), False),
        ((0.30, 0.29), False),
        ((0.30, 0.29, 0.29), True),
        ((0.30, 0.29, 0.28), False),
        ((0.30, 0.35, 0.20), False),
        ((0.30, 0.20, 0.25, 0.26), True),
        ((0.30, 0.20, 0.25, 0.10), False),
    ],
)
def test_a_plateau_is_patience_generations_without_improvement(stops, errors, flat):
    reason = stops(LoopState(generations=Generations(errors=errors)), patience=2)
    assert reason == ("the error has not improved for 2 generations" if flat else None)


def test_no_patience_at_all_is_a_patience_of_one(stops):
    assert stops(LoopState(generations=Generations(errors=(0.3,))), patience=0) is None
    assert stops(LoopState(generations=Generations(errors=(0.3, 0.3))), patience=0)


def test_generations_without_test_error_neither_meet_nor_miss_a_target(stops):
    nan = float("nan")
    assert (
        stops(
            LoopState(generations=Generations(errors=(nan, nan))),
            target=1.0,
            patience=1,
        )
        is None
    )
    assert stops(LoopState(generations=Generations(errors=(0.01, nan))), target=0.02)
