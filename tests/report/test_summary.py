"""The end of a run: a table that fits a terminal, and honest lines."""

import contextlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from alloop.cli.app import run_command
from alloop.history.label_entries import label_entries
from alloop.history.reader import CODEC
from alloop.loop import events as e
from alloop.report.analysis.examination import last_examination
from alloop.report.status import (
    campaign_status,
    detail_lines,
    end_lines,
    end_table,
)
from alloop.report.text.formatting import milli_text
from alloop.report.text.live_display import LabelCounter, turn_lines
from alloop.store.archive import Archive


def _printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_the_table_shows_each_generation_and_fits_eighty_columns(finished, control):
    text = _printed(end_table(finished, {"random": control}))
    rows = [line.split() for line in text.splitlines() if "generation" in line]
    error, rmse = (
        1e3 * x for x in (finished.state.generations.errors[-1], _rmse(finished))
    )
    assert rows[-1][:7] == [
        "generation",
        "3",
        "55",
        "16",
        "–",
        f"{error:.1f}",
        f"{rmse:.1f}",
    ]
    assert "…" not in text
    assert "random selection" in text


def _rmse(history):
    return history.trained()[-1].evaluation.force_rmse


def test_the_lines_say_what_was_spent_and_where_it_lies(finished):
    text = "\n".join(detail_lines(finished))
    assert "springs finished after 2 rounds: the budget of expensive" in text
    assert "cheap labels (HF/STO-3G): 60 of 60 used, 55 good, 0.5 s of CPU" in text
    assert "failed: 5 not converged" in text
    assert (
        "validation labels (CCSD(T)/cc-pVDZ): 12 good, 4.0 s of CPU time each" in text
    )
    assert "the workers were busy 8" in text


def test_doubtful_labels_are_told_at_the_end(troubled):
    text = "\n".join(detail_lines(troubled))
    doubtful = sum(
        label.fidelity == "expensive"
        and label.purpose != "test"
        and label.record.details.get("doubts") == "instability"
        for label in label_entries(troubled)
    )
    assert doubtful > 0
    assert f"16 of 16 used, 16 good ({doubtful} doubtful), 4.0 s" in text
    assert "noise floor 12%" in text


def test_a_lost_comparison_is_not_hidden(finished, control):
    text = "\n".join(end_lines(control, {"random": finished}))
    assert (
        "controls: worse than one: 24.2 meV/Å against 12.1 by random selection" in text
    )


def test_the_lines_name_the_error_and_its_test_set(finished):
    text = " ".join(detail_lines(finished))
    assert "errs by 12.1 meV/Å in forces (MAE; RMSE 15.6)" in text
    assert "on 12 frames of the validation set" in text


def test_a_young_campaign_says_how_far_it_is(finished, remade):
    lines = end_lines(remade(list(finished.entries[:2])))
    assert lines[0] == (
        "springs is not finished: first labels and validation set, 0 rounds begun, "
        "30 tasks open."
    )
    assert lines[1] == "error:    not known yet: there is no generation"
    young = remade(list(finished.entries[:1]))
    assert "cost:     no CPU time spent yet" in end_lines(young)
    assert "CPU time: none spent yet" in detail_lines(young)
    assert "There is no generation yet." in detail_lines(young)


def test_the_end_of_a_run_is_told_in_six_lines(examined, control):
    report = Path("runs/springs.html")
    lines = end_lines(examined, {"random": control}, report)
    assert [x.split(":")[0] for x in lines[1:]] == [
        *("error", "limits", "controls", "cost", "report")
    ]
    error = last_examination(examined).errors.force_mae
    assert lines[1].startswith(f"error:    {milli_text(error)} meV/Å in forces (MAE)")
    assert "on 11 frames of MD on the model at 450 K (the examination)" in lines[1]
    assert "16 of 16 expensive labels" in lines[4]
    assert "60 of 60 cheap labels (5 not converged)" in lines[4]
    assert "`alloop status runs/springs.zarr --all`" in lines[5]
    bare = end_lines(examined)
    assert "none were run" in bare[3]
    assert bare[-1].startswith("store:    runs/springs.zarr; ")


def test_the_examination_has_one_number_everywhere(examined):
    """Panel, end of the run, table and JSON: one error on as many frames."""
    found = last_examination(examined)
    mae, count = milli_text(found.errors.force_mae), f"{found.frames} frames"
    assert mae in _printed(end_table(examined))
    assert mae in end_lines(examined)[1]
    assert count in end_lines(examined)[1]
    told = campaign_status(examined)["examination"]
    assert (told["force_mae"], told["frames"]) == (found.errors.force_mae, found.frames)
    ended = examined.entries[-1].turn
    for line in turn_lines(examined.state, examined.state, ended, LabelCounter()):
        assert "meV/Å" not in line


def test_pieces_of_an_examination_may_come_in_any_order(examined):
    """The first batch may end last, and does not forget the frames of the others."""
    pieces = [x for _, x in examined.of_kind(e.Examined)]
    counter = LabelCounter()
    for event in sorted(pieces, key=lambda x: x.name, reverse=True):
        counter.add_event(examined.state, event)
    for label in label_entries(examined):
        if label.purpose == "examination":
            counter.add_event(examined.state, e.Labelled("x", label.record))
    assert counter.examined == pytest.approx(last_examination(examined).by_frame)


def _printed_status(history, tmp_path, *options):
    path = tmp_path / "springs.zarr"
    tmp_path.mkdir()
    with Archive.create(path, attrs=dict(history.attrs), codec=CODEC) as archive:
        for entry in history.entries:
            archive.append(entry.turn)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run_command(["status", str(path), *options]) == 0
    return out.getvalue().splitlines()


def test_status_has_the_words_of_the_end_and_with_all_the_rest(examined, tmp_path):
    short = _printed_status(examined, tmp_path / "a")
    told = dict(line.split(maxsplit=1) for line in short)
    for line in end_lines(examined)[1:5]:
        name, text = line.split(":", 1)
        assert told[name] == text.strip()
    assert len(short) <= 8
    full = _printed_status(examined, tmp_path / "b", "--all")
    assert [x.split()[0] for x in full[: len(short)]] == [x.split()[0] for x in short]
    for line in detail_lines(examined)[1:]:
        assert line in full
    assert any(line.startswith(" generation 3") for line in full)
