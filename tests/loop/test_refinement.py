"""When a generation is refined by cheap labels, and what follows."""

from dataclasses import replace

import pytest

from alloop.core.records import ModelCheck, Refinement
from alloop.loop.commands import Explore, LabelFrame, Train
from alloop.loop.rules import Budget, RefineRules, StopRules


@pytest.fixture
def rules(world):
    budget = Budget(cheap=40, expensive=12)
    return replace(world.RULES, budget=budget, refine=RefineRules(frames=3))


def reply(world, kept):
    """Every command is answered; refinements are kept or fail their check."""

    def answer(command):
        event = world.answer(command)
        if not isinstance(command, Train) or not command.refine:
            return event
        found = Refinement(
            len(command.refine), float(kept), (0.2, 0.1), (0.1, 0.1 if kept else 0.2)
        )
        check = ModelCheck("force error", found.held[1], 0.15)
        return replace(event, refinement=found, checks=(check,))

    return answer


@pytest.mark.parametrize("kept", [True, False])
def test_a_generation_is_refined_once_before_the_next_is_trained(world, rules, kept):
    played = world.game(rules, reply=reply(world, kept)).play()
    trainings = played.asked(Train)
    kinds = ["refined" if x.refine else "trained" for x in trainings]
    assert kinds == ["trained", "refined"] * (len(kinds) // 2) + ["trained"]
    assert [x.generation for x in trainings] == list(range(1, len(kinds) + 1))
    explored = [command.generation for command in played.asked(Explore, piece=0)]
    refined = [x.generation for x in trainings if x.refine]
    assert set(refined) <= set(explored) if kept else not set(refined) & set(explored)
    assert played.state.finished == "the budget of expensive labels is spent"
    assert played.state.generations.rejected == (
        frozenset() if kept else frozenset(refined)
    )
    for before, command, after in zip(
        trainings[::2], trainings[1::2], trainings[2::2], strict=False
    ):
        new = set(command.cheap) - set(before.cheap)
        assert set(command.refine) <= new
        assert command.expensive == before.expensive
        assert command.parent == played.state.generations.models[before.generation - 1]
        used = command if kept else before
        assert after.parent == played.state.generations.models[used.generation - 1]
        assert set(command.cheap) < set(after.cheap)
        assert set(before.expensive) < set(after.expensive)


def test_no_expensive_label_of_flagged_frames_is_bought_in_a_refined_round(
    world, rules
):
    played = world.game(rules, reply=reply(world, True)).to("bias")
    (refined,) = (x for x in played.asked(Train) if x.refine)
    flagged = {x.frame.id for x in played.asked(LabelFrame, purpose="flagged")}
    biased = {x.frame.id for x in played.asked(LabelFrame, purpose="bias")}
    assert set(refined.refine) <= flagged
    assert biased
    assert not biased & set(refined.refine)


def test_few_flagged_frames_call_for_no_refinement(world, rules):
    many = replace(rules, refine=RefineRules(frames=100))
    played = world.game(many, reply=reply(world, True)).play()
    assert not any(command.refine for command in played.asked(Train))
    plain = world.game(replace(rules, refine=None)).play()
    assert plain.asked(Train)[-1].expensive
    assert not any(command.refine for command in plain.asked(Train))


def test_cheap_labels_last_until_the_end(world, rules):
    played = world.game(rules, reply=reply(world, True)).play()
    spent = [x for x in played.asked(LabelFrame, purpose="flagged")]
    assert {x.fidelity for x in spent} == {"cheap"}
    assert played.state.labels.used("cheap") == 40


def test_a_campaign_that_ends_after_a_refinement_learns_all_labels(world, rules):
    short = replace(rules, stopping=StopRules(rounds=1))
    played = world.game(short, reply=reply(world, True)).play()
    first, refined, last = played.asked(Train)
    assert refined.refine
    assert not last.refine
    assert set(last.expensive) > set(first.expensive)  # control frames
    assert played.state.finished == "the limit of 1 round is reached"


def test_the_order_of_answers_does_not_matter(world, rules):
    made = [
        world.game(rules, reply=reply(world, True)).play(choose=choose).asked(Train)
        for choose in (lambda _: 0, lambda n: n - 1)
    ]
    assert world.same(*made)
