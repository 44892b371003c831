"""The end of a run: a table that fits a terminal, and honest lines."""

import io
from pathlib import Path

from rich.console import Console

from alloop.history.label_entries import label_entries
from alloop.report.text.summary import end_lines, end_table


def _printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_the_table_shows_each_generation_and_fits_eighty_columns(finished, control):
    text = _printed(end_table(finished, {"random": control}))
    rows = [line.split() for line in text.splitlines() if "generation" in line]
    error, rmse = (1e3 * x for x in (finished.state.errors[-1], _rmse(finished)))
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
    text = "\n".join(end_lines(finished, report=Path("runs/springs.html")))
    assert "springs finished after 2 rounds: the budget of expensive" in text
    assert "cheap labels (HF/STO-3G): 60 of 60 used, 55 good, 0.5 s of CPU" in text
    assert "failed: 5 not converged" in text
    assert (
        "validation labels (CCSD(T)/cc-pVDZ): 12 good, 4.0 s of CPU time each" in text
    )
    assert "the workers were busy 8" in text
    assert text.endswith("store: runs/springs.zarr\nreport: runs/springs.html")


def test_doubtful_labels_are_told_at_the_end(troubled):
    text = "\n".join(end_lines(troubled))
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
    assert "The campaign did not beat random selection" in text


def test_the_lines_name_the_error_and_its_test_set(finished):
    text = " ".join(end_lines(finished))
    assert "errs by 12.1 meV/Å in forces (MAE; RMSE 15.6)" in text
    assert "on 12 frames of the validation set" in text


def test_a_young_campaign_says_how_far_it_is(finished, remade):
    lines = end_lines(remade(list(finished.entries[:2])))
    assert lines[0] == (
        "springs is not finished: first labels and validation set, 0 rounds begun, "
        "30 tasks open."
    )
    assert lines[1] == "There is no generation yet."
    assert "CPU time: none spent yet" in end_lines(remade(list(finished.entries[:1])))
