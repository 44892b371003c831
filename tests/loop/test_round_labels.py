"""Labels that a round asks for: flagged frames, control frames, those with a bias."""

from dataclasses import replace

import numpy as np
import pytest

from alloop.loop import events as e
from alloop.loop.commands import (
    LabelFrame,
    Train,
)
from alloop.loop.rules import Budget
from alloop.selection import MostSurprising, PerMolecule
from tests.loop.conftest import ids


def flagged_and_control(commands):
    """Ids by (purpose, fidelity)."""
    out = {}
    for command in commands:
        out.setdefault((command.purpose, command.fidelity), set()).add(command.frame.id)
    return out


def test_labels_are_asked_for_only_when_every_batch_has_walked(world):
    begun = world.game().to("explore")
    begun.play(lambda g: len(g.state.open) == 1)
    assert begun.state.stage == "explore"
    begun.to("flag")
    assert all(isinstance(x, LabelFrame) for x in begun.state.open.values())


def test_control_frames_get_both_labels_and_flagged_ones_a_cheap_one(world):
    begun = world.game().to("flag")
    asked = flagged_and_control(begun.state.open.values())
    assert set(asked) == {
        ("control", "expensive"),
        ("control", "cheap"),
        ("flagged", "cheap"),
    }
    assert asked["control", "expensive"] == asked["control", "cheap"]
    # 9 expensive labels are left, 4 a round make 3 rounds; 14 cheap ones share them.
    assert len(asked["control", "cheap"]) == 1
    assert len(asked["flagged", "cheap"]) == 14 // 3 - 1
    controls = {
        c.frame.id for f in begun.state.exploration.pieces.values() for c in f.controls
    }
    assert asked["control", "cheap"] <= controls


def test_what_surprises_most_is_flagged(world):
    """With descriptors all equally far apart, only surprise is left to decide."""

    def reply(command):
        event = world.answer(command)
        if not isinstance(event, e.Explored):
            return event
        count = len(event.candidates)
        place = (3 * event.batch + event.piece) * count
        corners = np.eye(6 * count)
        spread = tuple(
            replace(x, descriptor=corners[place + i])
            for i, x in enumerate(event.candidates)
        )
        return replace(event, candidates=spread)

    begun = world.game(reply=reply).to("flag")
    flagged = begun.asked(LabelFrame, purpose="flagged")
    pool = [c for f in begun.state.exploration.pieces.values() for c in f.candidates]
    best = sorted(pool, key=lambda c: -c.surprise)[: len(flagged)]
    assert ids(flagged) == ids(best)
    assert all("above 0.50" in command.reason for command in flagged)


def test_what_a_guard_rail_stopped_is_flagged_whatever_its_surprise(world):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Explored) and event.name == "explore/1/1/0":
            odd = replace(event.candidates[0], surprise=0.0, origin="force")
            return replace(event, candidates=(odd, *event.candidates[1:]))
        if isinstance(event, e.Trained):
            return replace(event, threshold=2.0)  # surprise is below 1
        return event

    bold = replace(world.RULES, selector=PerMolecule(MostSurprising(fill=False)))
    begun = world.game(bold, reply=reply).to("flag")
    (flagged,) = begun.asked(LabelFrame, purpose="flagged")
    assert flagged.reason == "guard rail: force"


def test_without_fill_only_surprise_above_the_threshold_is_labelled(world):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Trained):
            return replace(event, threshold=2.0)  # surprise is below 1
        return event

    strict = replace(world.RULES, selector=PerMolecule(MostSurprising(fill=False)))
    begun = world.game(strict, reply=reply).to("flag")
    assert begun.asked(LabelFrame, purpose="flagged") == []
    assert len(begun.asked(LabelFrame, purpose="control")) == 2


def test_the_largest_bias_gets_the_expensive_labels(world):
    """The cheap label of one frame is wrong by far: it must be among the chosen."""

    def reply(command):
        event = world.answer(command)
        if worst and command is worst[0]:
            label = replace(event.label, forces=event.label.forces + 50.0)
            return replace(event, label=label)
        return event

    worst = []
    begun = world.game(reply=reply).to("flag")
    asked = begun.asked(LabelFrame, purpose="flagged")
    worst += sorted(asked, key=lambda x: x.frame.id)[1:2]
    begun.to("bias")
    asked = begun.asked(LabelFrame, purpose="bias")
    assert {x.fidelity for x in asked} == {"expensive"}
    assert len(asked) == 3  # every=4, one of them went to the control frame
    assert asked[0].frame == worst[0].frame
    assert asked[0].reason.startswith("bias 5")
    flagged = {x.frame.id for x in begun.asked(LabelFrame, purpose="flagged")}
    assert {x.frame.id for x in asked} <= flagged


def test_a_flagged_frame_without_cheap_label_gets_no_expensive_one(world):
    bad = set()

    def reply(command):
        if isinstance(command, LabelFrame) and command.purpose == "flagged":
            bad.add(command.frame.id)
            return world.failed(command)
        return world.answer(command)

    begun = world.game(reply=reply).to("train", generation=1)
    assert bad
    assert begun.asked(LabelFrame, purpose="bias") == []
    train = begun.asked(Train)[-1]
    assert train.generation == 2
    assert not bad & {*train.cheap, *train.expensive}


def test_an_excluded_frame_gets_no_expensive_label_either(world):
    begun = world.game().to("flag")
    frame = begun.asked(LabelFrame, purpose="flagged")[0].frame.id
    begun.turn(e.Excluded(frame, "cheap", "looks odd"))
    begun.to("bias")
    asked = begun.asked(LabelFrame, purpose="bias")
    assert asked
    assert frame not in ids(asked)


def test_random_selection_takes_control_frames_only(world):
    blind = replace(world.RULES, selection="random")
    begun = world.game(blind).to("bias")
    controls = {
        c.frame.id for f in begun.state.exploration.pieces.values() for c in f.controls
    }
    asked = [
        x
        for p in ("control", "flagged", "bias")
        for x in begun.asked(LabelFrame, purpose=p)
    ]
    assert {x.frame.id for x in asked} <= controls
    assert {x.reason for x in asked if x.purpose != "control"} == {"random"}
    steered = flagged_and_control(world.game().to("bias").asked(LabelFrame))
    random = flagged_and_control(begun.asked(LabelFrame))
    assert {k: len(v) for k, v in random.items()} == {
        k: len(v) for k, v in steered.items()
    }


def test_with_one_fidelity_no_cheap_label_is_ever_asked(world):
    alone = replace(world.RULES, budget=Budget(cheap=0, expensive=12))
    begun = world.game(alone).play()
    assert begun.asked(LabelFrame, fidelity="cheap") == []
    assert begun.asked(LabelFrame, purpose="flagged", fidelity="expensive")
    assert all(train.cheap == () for train in begun.asked(Train))
    assert begun.state.labels.used("expensive") == 12


@pytest.mark.parametrize("molecules", [1, 2, 3])
@pytest.mark.parametrize("cheap", [0, 6, 8, 20])
@pytest.mark.parametrize("control", [0.0, 0.25, 1.0])
def test_the_budget_is_spent_and_never_overdrawn(world, molecules, cheap, control):
    rules = replace(
        world.RULES, budget=Budget(cheap=cheap, expensive=12), control=control
    )
    begun = world.game(rules, molecules=molecules).play()
    assert begun.state.finished == "the budget of expensive labels is spent"
    assert begun.state.labels.used("expensive") == 12
    assert begun.state.labels.used("cheap") <= cheap


def test_no_frame_is_labelled_twice_at_a_level(world):
    names = [x.name for x in world.game(molecules=2).play().asked(LabelFrame)]
    assert len(names) == len(set(names))
