"""Metadynamics beside MD and shapes: its commands, and its share of the labels."""

from collections import Counter
from dataclasses import replace

import pytest

from alloop.loop.commands import Explore
from alloop.md.biases import MetadynamicsSettings
from alloop.md.shapes import ShapeSettings


def reply_of(world):
    """Answers in which other explorers' frames surprise more than those of MD."""

    def reply(command):
        event = world.answer(command)
        if not isinstance(command, Explore) or command.explorer == "md":
            return event
        explorer = command.explorer
        candidates = tuple(
            replace(x, explorer=explorer, surprise=x.surprise + 1.0)
            for x in event.candidates
        )
        return replace(
            event, walkers=(), candidates=candidates, controls=(), explorer=explorer
        )

    return reply


@pytest.fixture
def rules(world):
    budget = replace(world.RULES.budget, cheap=46, expensive=23)
    return replace(
        world.RULES,
        every=10,
        budget=budget,
        explorers={
            "shapes": ShapeSettings(share=0.4),
            "metadynamics": MetadynamicsSettings(share=0.3, steps=70),
        },
    )


@pytest.fixture
def played(world, rules):
    return world.game(rules, reply=reply_of(world)).to("train", generation=1)


def test_each_batch_of_walkers_is_copied_once_a_round(played):
    commands = played.asked(Explore, round=1)
    first = [x for x in commands if x.explorer == "md" and x.piece == 0]
    biased = [x for x in commands if x.explorer == "metadynamics"]
    assert [x.batch for x in commands if x.explorer == "shapes"] == [2, 3]
    assert [x.batch for x in biased] == [4, 5]
    assert [x.walkers for x in biased] == [x.walkers for x in first]
    assert all((x.steps, x.controls, x.piece) == (70, 0, 0) for x in biased)
    assert len({x.name for x in commands}) == len(commands)


def test_each_explorer_gets_its_share_of_the_labels(played):
    explorers = {
        candidate.frame.id: turn.event.explorer
        for turn in played.turns
        for candidate in getattr(turn.event, "candidates", ())
    }
    cheap = [x for x in played.state.labels.entries() if x.purpose == "flagged"]
    counts = Counter(explorers[x.frame] for x in cheap if x.fidelity == "cheap")
    total = sum(counts.values())
    assert counts["shapes"] == round(0.4 * total) > 0
    assert counts["metadynamics"] == round(0.3 * total) > 0
    assert counts["md"] == total - counts["shapes"] - counts["metadynamics"] > 0


def test_controls_are_those_of_plain_md(played):
    labels = played.state.labels.entries()
    controls = {x.frame for x in labels if x.purpose == "control"}
    drawn = {
        candidate.frame.id
        for turn in played.turns
        if getattr(turn.event, "explorer", "") == "md"
        for candidate in turn.event.controls
    }
    assert controls
    assert controls <= drawn


def test_a_random_control_campaign_is_not_biased(world, rules):
    random = replace(rules, selection="random")
    game = world.game(random, reply=reply_of(world)).to("train", generation=1)
    assert {x.explorer for x in game.asked(Explore)} == {"md"}
    assert not random.active_explorers
    assert set(rules.active_explorers) == {"shapes", "metadynamics"}
