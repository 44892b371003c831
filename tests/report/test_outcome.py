"""A campaign beside its controls, and its weaknesses with YAML that is valid."""

from dataclasses import replace
from math import log

import pytest
import yaml

from alloop.config.load import load_campaign
from alloop.core.records import Failure, Unlabelled
from alloop.history.label_entries import label_entries
from alloop.loop import events as e
from alloop.loop.rules import Examining, SeedRules
from alloop.report.analysis.campaign_facts import generation_facts
from alloop.report.analysis.examination import last_examination
from alloop.report.analysis.outcome import compare_control, compare_controls
from alloop.report.sections.summary_sections import MOST, weaknesses


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


def test_they_are_few_and_ordered_by_what_they_cost(finished, examined, control):
    for history in (finished, examined, control):
        found = weaknesses(history, {"random": finished, "standard": finished})
        costs = [x.cost for x in found]
        assert 0 < len(found) <= MOST
        assert costs == sorted(costs, reverse=True)
        assert min(costs) >= 0.05
        assert len({x.mend for x in found}) == len(found)


def _merge(tree, more):
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(tree.get(key), dict)
        tree[key] = _merge(tree[key], value) if both else value
    return tree


BASE = {
    **{"name": "w", "seed": 1, "start": [{"molecule": "H2O"}]},
    "levels": {
        "cheap": {"kind": "pyscf", "method": "hf", "basis": "sto-3g"},
        "expensive": {"kind": "pyscf", "method": "mp2", "basis": "sto-3g"},
    },
}


def _every_weakness(synthetic, rules, opened, histories):
    """Return weaknesses of many kinds."""
    for history, controls in histories:
        yield from weaknesses(history, controls)
    untested = replace(rules, seeding=SeedRules(cheap=20, expensive=6, validation=0))
    yield from weaknesses(synthetic(rules=untested).history(opened), {})
    few = replace(rules, seeding=SeedRules(cheap=20, expensive=6, validation=4))
    yield from weaknesses(synthetic(rules=few).history(opened), {})


def test_every_mend_is_valid_in_a_campaign_file(
    synthetic, rules, opened, finished, examined, troubled, control, tmp_path
):
    bad = {"random": finished, "standard": finished}
    histories = [(finished, {}), (examined, {}), (troubled, {}), (control, bad)]
    found = list(_every_weakness(synthetic, rules, opened, histories))
    kinds = set()
    for each in found:
        mended = yaml.safe_load(each.mend)
        kinds |= set(mended)
        path = tmp_path / "campaign.yaml"
        tree = _merge(yaml.safe_load(yaml.safe_dump(BASE)), mended)
        path.write_text(yaml.safe_dump(tree))
        load_campaign(path)  # refuses what no campaign file may hold
    assert {"validation", "flag", "training", "explore", "levels"} <= kinds


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure.TIMEOUT, "limits: {label_time: 7200}"),
        (Failure.MEMORY, "limits: {label_memory: 16000}"),
        (Failure.NOT_CONVERGED, "explore: {guards: {force: 15}}"),
        (Failure.LOST, "# no key mends this; alloop resume STORE --retry tries again"),
    ],
)
def test_a_failure_is_mended_by_what_caused_it(finished, remade, failure, line):
    entries = list(finished.entries)
    for label in label_entries(finished):
        if isinstance(label.record, Unlabelled):
            turn = entries[label.answered].turn
            bad = replace(label.record, failure=failure)
            turn = replace(turn, event=replace(turn.event, unlabelled=bad))
            entries[label.answered] = replace(entries[label.answered], turn=turn)
    (found,) = (x for x in weaknesses(remade(entries), {}) if "failed" in x.text)
    assert found.mend == line
    assert found.cost == pytest.approx(5 / 60)


def test_a_control_that_did_better_costs_the_difference(finished, control):
    (found,) = (
        x for x in weaknesses(control, {"random": finished}) if "Random" in x.text
    )
    assert found.cost == pytest.approx(0.5, abs=0.01)  # it errs twice as much
    assert found.mend == "flag: {selection: random}"
    assert not [x for x in weaknesses(finished, {"random": control}) if "Ran" in x.text]


def test_the_advised_examination_would_be_sure_enough(synthetic, rules, opened):
    few = replace(rules, examining=Examining(6, 200, (450.0,)))
    history = synthetic(rules=few).history(opened)
    found = [x for x in weaknesses(history, {}) if "two standard errors" in x.text]
    frames = last_examination(history).frames
    for each in found:
        advised = yaml.safe_load(each.mend)["validation"]["examination"]
        assert each.cost * (frames / advised) ** 0.5 <= 0.1 + 1e-9
    assert found


def test_a_fact_is_no_weakness(finished):
    texts = " ".join(x.text for x in weaknesses(finished, {}))
    assert "threshold" not in texts
    assert "seed" not in texts
