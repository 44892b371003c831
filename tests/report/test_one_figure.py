"""Each figure is one wherever it is told, and that of a replay of the journal."""

import io
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.report.analysis.campaign_facts import generation_facts
from alloop.report.analysis.label_facts import label_kind
from alloop.report.sections.page import render_report
from alloop.report.status import campaign_status, detail_lines, end_table
from alloop.report.text.formatting import duration_text, milli_text
from tests.report.conftest import springs


def events_of(history, *kinds):
    events = (entry.turn.event for entry in history.entries)
    return [event for event in events if isinstance(event, kinds)]


def answers(history):
    """The command of each label that was asked for, with its answer."""
    asked = {
        command.name: command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, LabelFrame)
    }
    events = events_of(history, e.Labelled, e.NotLabelled)
    return [(asked[event.name], event) for event in events]


def test_errors_are_those_of_the_journal_s_predictions_against_the_truth(finished):
    truth = {
        command.frame.id: springs(command.frame)[1] for command, _ in answers(finished)
    }
    errors = []
    for event in events_of(finished, e.Trained):
        told = event.evaluation
        off = told.forces - np.concatenate([truth[frame] for frame in told.frames])
        errors.append(float(np.abs(off).mean()))
    assert len(errors) == 3
    assert campaign_status(finished)["errors"] == pytest.approx(errors, rel=1e-12)


def test_the_error_of_a_generation_is_one_in_status_curve_and_table(finished):
    facts = generation_facts(finished)
    assert [x.force_mae for x in facts] == campaign_status(finished)["errors"]
    out = io.StringIO()
    Console(file=out, width=100).print(end_table(finished))
    rows = [x.split() for x in out.getvalue().splitlines() if "generation" in x]
    told = [(milli_text(x.force_mae), milli_text(x.force_rmse)) for x in facts]
    assert [tuple(row[5:7]) for row in rows] == told


@pytest.mark.parametrize("name", ["finished", "examined", "troubled"])
def test_labels_are_those_of_the_journal_s_answers(name, request):
    history = request.getfixturevalue(name)
    good, failed = Counter(), Counter()
    for command, event in answers(history):
        kind = label_kind(command.purpose, command.fidelity)
        (good if isinstance(event, e.Labelled) else failed)[kind] += 1
    told = campaign_status(history)["labels"]
    assert {k: x["good"] for k, x in told.items()} == {k: good[k] for k in told}
    assert {k: x["failed"] for k, x in told.items()} == {k: failed[k] for k in told}
    assert good.total() == sum(x["good"] for x in told.values())


def test_cpu_time_is_that_of_all_answers_and_one_in_status_and_lines(troubled):
    spent = 0.0
    for event in events_of(troubled, object):
        match event:
            case e.Labelled():
                spent += 0.0 if event.cached else event.label.cpu_seconds
            case e.NotLabelled():
                spent += event.unlabelled.cpu_seconds
            case (
                e.Rechecked() | e.Prepared() | e.Sampled() | e.Explored() | e.Trained()
            ):
                spent += event.timing.cpu_seconds
    told = campaign_status(troubled)["cpu_seconds"]
    assert told == pytest.approx(spent)
    (line,) = [x for x in detail_lines(troubled) if x.startswith("CPU time: ")]
    assert line.startswith(f"CPU time: {duration_text(told)}: ")


def test_a_section_without_data_has_a_sentence_and_no_figure(finished, remade):
    """All sections are there from the start; figures come with their data and stay."""
    first = next(
        number
        for number, entry in enumerate(finished.entries)
        if isinstance(entry.turn.event, e.Trained)
    )
    figures = []
    for cut in (1, first, first + 1, len(finished.entries)):
        page = render_report(remade(list(finished.entries[:cut])))
        sections = re.findall(r'<section id="([^"]+)">(.*?)</section>', page, re.DOTALL)
        assert all(re.search(r">[^<]{20}", body) for _, body in sections)
        figures.append({x: body.count("<figure") for x, body in sections})
    assert all(x.keys() == figures[0].keys() for x in figures)
    assert not any(figures[0].values())
    of_generations = ("learning", "parity", "residuals")
    assert not any(figures[1][x] for x in of_generations)
    assert all(figures[2][x] for x in of_generations)
    for before, after in pairwise(figures):
        assert all(before[x] <= after[x] for x in before)
    assert all(figures[3][x] for x in ("surprise", "walkers", "bias", "timeline"))
