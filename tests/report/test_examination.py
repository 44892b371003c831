"""The examination in reports: errors, walkers that were stopped, alarms."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from alloop.core.records import Failure, Unlabelled
from alloop.history.label_entries import label_entries
from alloop.loop import events as e
from alloop.report.analysis.examination import (
    examination_sentences,
    last_examination,
    threshold_sentences,
)
from alloop.report.analysis.outcome import compare_control
from alloop.report.sections.error_sections import error_groups
from alloop.report.sections.page import render_report
from alloop.report.status import (
    campaign_status,
    detail_lines,
    end_lines,
    end_table,
)
from alloop.report.text.formatting import milli_text
from alloop.report.text.frame_history import describe_frame
from alloop.report.text.live_display import LabelCounter, fact_rows


def examined_labels(history):
    return [x for x in label_entries(history) if x.purpose == "examination"]


def test_errors_are_those_of_predictions_made_before_the_labels(examined):
    found = last_examination(examined)
    predicted = {
        x.frame.id: x for _, event in examined.of_kind(e.Examined) for x in event.frames
    }
    apart = [
        predicted[x.frame.id].forces - x.record.forces
        for x in examined_labels(examined)
    ]
    energies = np.array(
        [
            predicted[x.frame.id].energy - x.record.energy
            for x in examined_labels(examined)
        ]
    )
    assert found.frames == len(apart) == 11
    assert found.errors.force_mae == pytest.approx(np.abs(apart).mean())
    assert found.errors.energy_mae == pytest.approx(np.abs(energies).mean())
    spread = np.abs(energies - energies.mean()).mean()
    assert found.errors.energy_spread == pytest.approx(spread)
    assert found.errors.energy_mae > 0.3 > 0.1 > found.errors.energy_spread


@pytest.mark.usefixtures("figures")
def test_molecules_and_elements_are_judged_by_the_examination(examined):
    found, groups = last_examination(examined), error_groups(examined)
    assert (groups.where, groups.frames) == ("the examination", 11)
    assert groups.molecules[0].mae == pytest.approx(found.errors.force_mae)
    assert groups.molecules[0].energy_mae == pytest.approx(found.errors.energy_spread)
    page = render_report(examined)
    assert "of the examination, the worst first" in page
    assert 'href="#shape-square"' in page


def test_those_who_were_stopped_are_a_result(examined):
    found = last_examination(examined)
    assert (found.walkers, dict(found.stopped), found.wanted) == (6, {"force": 1}, 12)
    assert "1 of the 6 walkers of the examination were stopped (1 force)" in " ".join(
        examination_sentences(examined)
    )


def test_alarms_are_counted_against_the_threshold(examined):
    found = last_examination(examined)
    surprise = [x.surprise for _, y in examined.of_kind(e.Examined) for x in y.frames]
    assert found.threshold == 1.5
    assert found.alarms == sum(x > 1.5 for x in surprise) > 0
    text = " ".join(threshold_sentences(examined))
    assert "not calibrated for MD" in text
    assert f"{found.alarms} of 11 frames of MD" in text


def test_a_quantile_is_promised_only_where_frames_give_it(examined, remade):
    def resting_on(count):
        entries = [
            replace(entry, turn=replace(entry.turn, event=_on(entry.turn.event, count)))
            for entry in examined.entries
        ]
        return " ".join(threshold_sentences(remade(entries)))

    few, many = resting_on(15), resting_on(200)
    assert "15 frames" in few
    assert "0.94" in few
    assert "promised" not in few
    assert "200 frames" in many
    assert "a nominal rate of 0.01" in many


def _on(event, count):
    return (
        replace(event, calibrated_on=count) if isinstance(event, e.Trained) else event
    )


def test_frames_without_a_label_that_counts_are_told_and_left_out(examined, remade):
    lost, out = (x.frame.id for x in examined_labels(examined)[:2])
    entries = [
        replace(x, turn=replace(x.turn, event=_refused(x.turn.event, lost)))
        for x in examined.entries
    ]
    entries[-1] = replace(
        entries[-1], turn=e.Turn(entries[-1].turn.event, ())
    )  # not finished yet
    by_hand = e.Turn(e.Excluded(out, None, "odd"), ())
    found = last_examination(remade([*entries, replace(entries[-1], turn=by_hand)]))
    assert dict(found.missing) == {"not converged": 1, "excluded by hand": 1}
    assert found.frames == 9
    assert not {lost, out} & found.by_frame.keys()


def _refused(event, frame):
    if isinstance(event, e.Labelled) and event.label.frame == frame:
        label = event.label
        bad = Unlabelled(frame, label.level, Failure.NOT_CONVERGED, "", 1.0)
        return e.NotLabelled(event.name, bad)
    return event


def test_summary_status_and_table_lead_with_the_examination(examined):
    found, lines = last_examination(examined), detail_lines(examined)
    mae = f"{1e3 * found.errors.force_mae:.3g}"
    places = [lines.index(x) for x in examination_sentences(examined)]
    frozen = next(i for i, x in enumerate(lines) if "validation set" in x)
    assert min(places) == 1
    assert max(places) < frozen
    assert mae in lines[1]
    told_ = campaign_status(examined)
    assert told_["examination"]["force_mae"] == found.errors.force_mae
    assert told_["examination"]["alarms"] == found.alarms
    assert told_["best"] == found.generation
    out = io.StringIO()
    Console(file=out, width=80).print(end_table(examined))
    assert mae in out.getvalue()


def test_without_an_examination_nothing_is_made_up(finished):
    assert last_examination(finished) is None
    assert list(examination_sentences(finished)) == []
    assert campaign_status(finished)["examination"] is None


def test_why_tells_what_a_frame_was_for(examined):
    frame = examined_labels(examined)[0].frame.id
    text = "\n".join(describe_frame(examined, frame))
    assert "examination 1 of generation 3" in text
    assert "was wrong by" in text
    assert "was learned by" not in text


def test_the_live_display_shows_it_as_labels_come(examined, rules):
    counter, shown = LabelCounter(), []
    for entry in examined.entries:
        counter.add_event(examined.state, entry.turn.event)
        under_way = replace(examined.state, finished=None)
        shown.append(dict(fact_rows(under_way, counter)).get("examination"))
    found = last_examination(examined)
    assert shown[-1] == (
        f"{milli_text(found.errors.force_mae)} meV/Å on 11 frames of MD on the model "
        "so far"
    )
    assert "on 1 frame of" in next(filter(None, shown))
    assert "examination" not in dict(fact_rows(examined.state, counter))


def test_the_last_generation_is_not_taken_where_it_is_worse(examined, remade):
    def worse(event):
        if isinstance(event, e.Trained) and event.generation == 3:
            return replace(event, evaluation=replace(event.evaluation, force_mae=1.0))
        return event

    entries = [
        replace(x, turn=replace(x.turn, event=worse(x.turn.event)))
        for x in examined.entries
    ]
    grown = remade(entries)
    assert grown.state.generations.best == 2
    lead = " ".join(end_lines(grown))
    assert "use generation 2, which has the smallest error" in lead
    assert "smallest error" not in " ".join(end_lines(examined))


def test_a_control_is_compared_on_the_examination_first(examined):
    found = compare_control(examined, "random", examined)
    assert [x.n for x in found.pairs] == [11, 12]
    assert not found.certain
