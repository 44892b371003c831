"""Explorers beside MD: what they are asked for, and their share of the labels."""

from dataclasses import replace

import pytest

from alloop.core.records import Walker
from alloop.loop.commands import Explore
from alloop.md.shapes import ShapeSettings


def proposing(world):
    """Answers in which shapes surprise more than all frames of MD."""

    def reply(command):
        event = world.answer(command)
        if not isinstance(command, Explore) or command.explorer == "md":
            return event
        candidates = tuple(
            replace(x, explorer="shapes", surprise=x.surprise + 1.0)
            for x in event.candidates
        )
        return replace(
            event, walkers=(), candidates=candidates, controls=(), explorer="shapes"
        )

    return reply


@pytest.fixture
def rules(world):
    budget = replace(world.RULES.budget, cheap=46, expensive=23)
    explorers = {"shapes": ShapeSettings(share=0.4)}
    return replace(world.RULES, every=10, budget=budget, explorers=explorers)


def played(world, rules):
    return world.game(rules, reply=proposing(world)).to("train", generation=1)


def test_each_batch_of_walkers_gives_shapes_once_a_round(world, rules):
    game = played(world, rules)
    commands = game.asked(Explore, round=1)
    shapes = [x for x in commands if x.explorer == "shapes"]
    first = [x for x in commands if x.explorer == "md" and x.piece == 0]
    assert [x.batch for x in first] == [0, 1]
    assert [x.batch for x in shapes] == [2, 3]
    assert [x.walkers for x in shapes] == [x.walkers for x in first]
    assert all((x.steps, x.controls, x.piece) == (0, 0, 0) for x in shapes)
    assert len({x.name for x in commands}) == len(commands)
    assert {x.explorer for x in commands if x.piece} == {"md"}


def test_shapes_get_their_share_of_the_labels_however_surprising(world, rules):
    game = played(world, rules)
    shapes = {
        candidate.frame.id
        for turn in game.turns
        if getattr(turn.event, "explorer", "md") == "shapes"
        for candidate in turn.event.candidates
    }
    labels = {
        (fidelity, purpose): [
            x.frame in shapes
            for x in game.state.labels.entries()
            if (x.fidelity, x.purpose) == (fidelity, purpose)
        ]
        for fidelity, purpose in (
            ("cheap", "flagged"),
            ("expensive", "bias"),
            ("expensive", "control"),
        )
    }
    cheap, expensive, control = labels.values()
    assert sum(cheap) == round(0.4 * len(cheap)) > 0
    assert sum(expensive) == round(0.4 * len(expensive)) > 0
    assert control
    assert not any(control)


def test_walkers_stand_where_md_left_them(world, rules):
    game = played(world, rules)
    assert {walker.step for walker in game.state.exploration.walkers.values()} == {25}


def test_md_takes_what_shapes_leave(world, rules):
    def reply(command):
        event = proposing(world)(command)
        if getattr(event, "explorer", "md") == "shapes":
            return replace(event, candidates=event.candidates[:1])
        return event

    game = world.game(rules, reply=reply).to("bias", generation=1)
    flagged = [x for x in game.state.labels.entries() if x.purpose == "flagged"]
    alone = world.game(replace(rules, explorers={})).to("bias", generation=1)
    others = [x for x in alone.state.labels.entries() if x.purpose == "flagged"]
    assert len(flagged) == len(others) > 2


def test_a_random_control_campaign_proposes_no_shapes(world, rules):
    game = played(world, replace(rules, selection="random"))
    assert {x.explorer for x in game.asked(Explore)} == {"md"}


def test_the_order_of_answers_does_not_matter(world, rules):
    games = [
        world.game(rules, reply=proposing(world)).play(
            lambda g: g.state.exploration.round == 2, choose
        )
        for choose in (lambda _: 0, lambda count: count - 1)
    ]
    first, second = (
        sorted((x.frame, x.fidelity, x.purpose) for x in game.state.labels.entries())
        for game in games
    )
    assert first == second


def test_a_label_names_the_explorer_that_proposed_its_frame(world, rules):
    game = played(world, rules)
    walker = Walker(0, 0, world.frame("w"), world.still())
    assert world.candidate("x", walker).explorer == "md"
    reasons = [
        command.reason
        for turn in game.turns
        for command in turn.commands
        if getattr(command, "purpose", "") == "flagged"
    ]
    assert any(reason.startswith("shapes: surprise") for reason in reasons)
    assert any(reason.startswith("surprise") for reason in reasons)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_md_may_be_drawn_at_random(world, rules, share):
    game = played(world, replace(rules, random=share))
    reasons = {
        (fidelity, purpose): [
            command.reason
            for turn in game.turns
            for command in turn.commands
            if getattr(command, "purpose", "") == purpose
            and command.fidelity == fidelity
            and not command.reason.startswith("shapes: ")
        ]
        for fidelity, purpose in (("cheap", "flagged"), ("expensive", "bias"))
    }
    for kind in reasons.values():
        assert kind
        assert kind.count("random") == round(share * len(kind))
    labels = [x.frame for x in game.state.labels.entries() if x.fidelity == "cheap"]
    assert len(set(labels)) == len(labels)


def test_frames_drawn_at_random_are_no_control_frames(world, rules):
    game = played(world, replace(rules, random=0.5))
    entries = list(game.state.labels.entries())
    controls = {x.frame for x in entries if x.purpose == "control"}
    flagged = {x.frame for x in entries if x.purpose in ("flagged", "bias")}
    assert controls
    assert controls.isdisjoint(flagged)
    assert len(controls) == len(
        {
            x.frame
            for x in played(world, rules).state.labels.entries()
            if x.purpose == "control"
        }
    )
