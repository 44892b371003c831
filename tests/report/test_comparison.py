"""Campaign against controls: who won is said as it is."""

from dataclasses import replace
from math import log

import pytest

from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import generation_facts
from alloop.report.analysis.comparison import compare_control, compare_controls


def test_a_better_campaign_beats_its_control(finished, control):
    found = compare_control(finished, "random", control)
    assert found.gain > 0.3
    assert found.certain
    assert found.sentence.startswith("The campaign beat random selection: ")
    assert "within the noise" not in found.sentence


def test_a_worse_campaign_says_that_it_did_not_win(finished, control):
    found = compare_control(control, "standard", finished)
    ours = 1e3 * control.state.generations.errors[-1]
    theirs = 1e3 * finished.state.generations.errors[-1]
    assert found.sentence.startswith(
        f"The campaign did not beat standard training: {ours:.1f} against {theirs:.1f} "
    )


def test_equal_campaigns_differ_by_noise(finished):
    found = compare_control(finished, "random", finished)
    assert found.gain == 0.0
    assert not found.certain
    assert "within the noise of 12 frames" in found.sentence


def test_a_control_is_judged_at_equal_label_cost(finished, remade, control):
    young = remade(_until(finished, generation=2))
    found = compare_control(young, "random", control)
    assert found.theirs.generation == 2 < generation_facts(control)[-1].generation
    ours = found.ours.label_cost
    apart = [abs(log(each.label_cost / ours)) for each in generation_facts(control)]
    assert abs(log(found.theirs.label_cost / ours)) == min(apart)


def test_nothing_is_compared_without_tests(finished, remade):
    untested = remade(
        [
            replace(entry, turn=replace(entry.turn, event=_untested(entry.turn.event)))
            for entry in finished.entries
        ]
    )
    assert compare_control(finished, "random", untested) is None
    assert compare_controls(untested, {"random": finished}) == ()


def test_other_test_frames_are_pointed_out(finished, remade, control):
    entries = [
        replace(entry, turn=replace(entry.turn, event=_halved(entry.turn.event)))
        for entry in control.entries
    ]
    found = compare_control(finished, "random", remade(entries))
    assert found.noise is None
    assert "tested on different frames" in found.sentence


def _until(history, generation):
    for number, entry in enumerate(history.entries):
        event = entry.turn.event
        if isinstance(event, e.Trained) and event.generation == generation:
            return list(history.entries[: number + 1])
    raise pytest.UsageError("no such generation")


def _untested(event):
    return replace(event, evaluation=None) if isinstance(event, e.Trained) else event


def _halved(event):
    if not isinstance(event, e.Trained) or event.evaluation is None:
        return event
    test = event.evaluation
    half = replace(
        test,
        frames=test.frames[:6],
        energies=test.energies[:6],
        forces=test.forces[:18],
        surprise=test.surprise[:6],
    )
    return replace(event, evaluation=half)
