"""Labels of a synthetic campaign: their details, costs and noise."""

from collections import Counter
from dataclasses import replace

import pytest

from alloop.core.doubts import Doubt
from alloop.core.records import Failure, Label, Noise
from alloop.history.label_entries import label_entries
from alloop.history.reader import JournalEntry
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.report.analysis.label_facts import (
    FEW,
    NoiseFloor,
    doubt_policy,
    label_costs,
    label_qualities,
    label_totals,
    noise_floors,
    quarantined_labels,
)
from alloop.report.sections.methods_sections import label_checks
from alloop.report.status import detail_lines


def _details(history, fidelity, key):
    return [
        x.record.details[key]
        for x in label_entries(history)
        if x.fidelity == fidelity
        and isinstance(x.record, Label)
        and key in x.record.details
    ]


def test_rescues_are_counted_by_the_rung_that_gave_the_label(troubled):
    for quality in label_qualities(troubled):
        rungs = Counter(_details(troubled, quality.fidelity, "rung"))
        assert quality.rescued == {"damping": rungs["damping"]}
        assert rungs["damping"] > 0
        assert quality.lost_seconds == pytest.approx(0.25 * rungs["damping"])


def test_doubts_name_their_frames(troubled):
    cheap, expensive = label_qualities(troubled)
    signs = _details(troubled, "expensive", "doubts")
    assert cheap.doubts == {}
    assert list(expensive.doubts) == [Doubt.INSTABILITY]
    frames = expensive.doubts[Doubt.INSTABILITY]
    assert len(frames) == len(set(frames)) == signs.count("instability") > 0


def test_ranges_span_what_the_labels_tell(troubled):
    cheap, expensive = label_qualities(troubled)
    values = _details(troubled, "expensive", "t1")
    assert expensive.ranges["t1"] == (min(values), max(values), len(values))
    assert expensive.ranges["external"] == (-0.02, 0.1, 28)
    assert set(cheap.ranges) == {"gap"}


def test_labels_that_tell_nothing_are_no_trouble(finished):
    for quality in label_qualities(finished):
        assert quality.rescued == {}
        assert quality.doubts == {}


def test_the_policy_is_that_of_the_configuration(finished):
    text = finished.config + (
        "levels:\n  cheap: {doubts: {contamination: exclude}}\n"
        "  expensive: {doubts: accept}\n"
    )
    history = replace(
        finished, attrs={**finished.attrs, "config": text}, entries=finished.entries[:1]
    )
    assert "excluded" in doubt_policy(history, "cheap", Doubt.CONTAMINATION)
    assert "kept, with a mark" in doubt_policy(history, "cheap", Doubt.MULTIREFERENCE)
    assert "accepted" in doubt_policy(history, "expensive", Doubt.CONTAMINATION)


def _retried(history, remade):
    """The first failed label as if lost to its time limit, then made on a retry."""
    label, _ = quarantined_labels(history)[0]
    entries = list(history.entries)
    lost = entries[label.answered].turn.event
    record = replace(lost.unlabelled, failure=Failure.TIMEOUT)
    entries[label.answered] = replace(
        entries[label.answered],
        turn=replace(
            entries[label.answered].turn, event=replace(lost, unlabelled=record)
        ),
    )
    command = next(
        x
        for entry in entries
        for x in entry.turn.commands
        if isinstance(x, LabelFrame) and x.name == lost.name
    )
    good = next(x.record for x in label_entries(history) if isinstance(x.record, Label))
    good = replace(good, frame=command.frame.id, level=command.level)
    turns = (
        e.Turn(e.Retried((command,)), (command,)),
        e.Turn(e.Labelled(command.name, good)),
    )
    after = [JournalEntry(len(entries) + i, 0.0, turn) for i, turn in enumerate(turns)]
    return remade([*entries, *after[:1]]), remade([*entries, *after]), label


def test_a_label_that_came_on_a_retry_is_out_of_quarantine_and_counts_once(
    finished, remade
):
    before, after, label = _retried(finished, remade)
    assert label.frame.id in {x.frame.id for x, _ in quarantined_labels(before)}
    assert len(quarantined_labels(after)) == len(quarantined_labels(before)) - 1
    assert label.frame.id not in {x.frame.id for x, _ in quarantined_labels(after)}
    was, now = label_totals(before)[0], label_totals(after)[0]
    assert (now.good, now.failed) == (was.good + 1, was.failed - 1)
    assert now.used == was.used
    assert now.cpu_seconds > was.cpu_seconds


def test_bills_tell_what_came_and_what_had_been_foretold(troubled):
    cheap, expensive = label_costs(troubled)
    assert (cheap.fidelity, cheap.molecule, cheap.labels) == ("cheap", "H2O", 55)
    assert (expensive.labels, expensive.mean, expensive.largest) == (28, 4.0, 4.0)
    assert expensive.peak_mb == 140.5
    later = [
        x
        for x in label_entries(troubled)
        if x.round > 0 and isinstance(x.record, Label)
    ]
    assert cheap.predicted + expensive.predicted == len(later)
    assert 1.0 <= cheap.factor < 1.01
    assert 1.0 <= expensive.factor < 1.01


def test_a_wrong_prediction_is_a_factor_above_one_whichever_way(troubled, remade):
    def dear(event):
        if not isinstance(event, e.Labelled):
            return event
        label = replace(event.label, cpu_seconds=event.label.cpu_seconds / 3)
        return replace(event, label=label)

    entries = [
        replace(x, turn=replace(x.turn, event=dear(x.turn.event)))
        for x in troubled.entries
    ]
    assert label_costs(remade(entries))[1].factor == pytest.approx(3.0, rel=0.02)


def test_without_predictions_there_is_no_factor(finished, remade):
    young = remade(list(finished.entries[:30]))
    assert all(
        bill.factor is None and bill.peak_mb is None for bill in label_costs(young)
    )


def test_the_methods_name_only_checks_that_the_levels_have(finished, troubled):
    cheap = finished.attrs["levels"]["cheap"]
    ladder = ["default", "damping"]
    settings = {**cheap["settings"], "ladder": ladder, "stability": "auto"}
    levels = {
        "cheap": {**cheap, "settings": settings},
        "expensive": {"title": "toy", "kind": "toy", "settings": {}},
    }
    first, second = label_checks(replace(finished, attrs={"levels": levels}))
    assert "closer than 0.5 of the sum" in first
    assert "net force 0.0001 eV/Å" in first
    assert "Until the SCF converges: default and damping." in first
    assert "where the gap is small and on every later rung" in first
    assert "SCF" not in second
    assert "compared" not in second
    noise = list(label_checks(troubled))[-1]
    assert "6 of HF/STO-3G and 3 of CCSD(T)/cc-pVDZ" in noise


def _with(history, remade, *noises):
    """The history with these noises at its end."""
    late = history.entries[-1].time
    entries = [
        JournalEntry(
            len(history.entries) + i, late, e.Turn(e.Rechecked(_name(noise), noise))
        )
        for i, noise in enumerate(noises)
    ]
    return remade([*history.entries, *entries])


def _name(noise):
    return f"recheck/{noise.level}/{noise.frame}"


def _noises(history, n, rms, fidelity="expensive"):
    level = history.opened.levels[fidelity]
    frames = history.state.labels.trained_on(fidelity)[:n]
    return [Noise(x, level, rms / 10, rms, 2 * rms, 1.0) for x in frames]


def test_the_floor_of_a_level_is_that_of_its_rechecked_labels(finished, remade):
    level = finished.opened.levels["expensive"]
    found = [
        Noise("a" * 32, level, 1e-3, 3e-3, 8e-3),
        Noise("b" * 32, level, 5e-3, 4e-3, 9e-3),
        Noise("c" * 32, level, 2e-3, 0.0, 1e-3),
        Noise("d" * 32, level, failure=Failure.TIMEOUT),
    ]
    (floor,) = noise_floors(_with(finished, remade, *found))
    assert (floor.fidelity, floor.title) == ("expensive", "CCSD(T)/cc-pVDZ")
    assert (floor.n, floor.lost) == (3, 1)
    assert (floor.energy_median, floor.energy_max) == (2e-3, 5e-3)
    assert floor.force_rms == pytest.approx((25e-6 / 3) ** 0.5)
    assert floor.force_max == 9e-3
    assert floor.error == finished.trained()[-1].evaluation.force_rmse
    assert "1 label could not be made again." in floor.sentence


def test_a_campaign_without_rechecks_has_no_floor(finished):
    assert noise_floors(finished) == ()


@pytest.mark.parametrize(
    ("rms", "words"),
    [
        (15.64e-3 / 40, "The expensive labels' own noise is 1/40 of the model's error"),
        (1e-9, "labels' own noise is less than a thousandth of the model's error"),
        (8e-3, "within 3 times of the noise of its expensive labels (15.6 against 8 "),
        (0.1, "improve the labels before adding more"),
    ],
)
def test_the_noise_is_judged_by_the_models_error(finished, remade, rms, words):
    history = _with(finished, remade, *_noises(finished, FEW, rms))
    (floor,) = noise_floors(history)
    assert words in floor.sentence
    assert "Only" not in floor.sentence
    assert floor.sentence in detail_lines(history)


def test_few_rechecks_are_called_few(finished, remade):
    (floor,) = noise_floors(_with(finished, remade, *_noises(finished, 2, 1e-4)))
    assert floor.sentence.endswith(
        "Only 2 labels rechecked: this is an order of magnitude."
    )


def test_a_model_that_was_not_tested_cannot_be_compared(finished, remade):
    young = remade(list(finished.entries[:40]))
    noises = _noises(finished, 3, 2e-3)
    (floor,) = noise_floors(_with(young, remade, *noises))
    assert "own noise is 2 meV/Å in forces (RMS); the model was not" in floor.sentence


def test_labels_that_could_not_be_made_again_have_no_known_noise(finished, remade):
    lost = [
        replace(x, failure=Failure.NOT_CONVERGED) for x in _noises(finished, 2, 1e-4)
    ]
    (floor,) = noise_floors(_with(finished, remade, *lost))
    assert floor.sentence == (
        "None of 2 expensive labels could be made again: their noise is not known."
    )


def test_without_noise_the_sentence_still_stands():
    floor = NoiseFloor("cheap", "toy", FEW, 0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.01)
    assert "less than a thousandth" in floor.sentence
