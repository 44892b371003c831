"""The page of `alloop diagnose`: shifts of frames that the user brings."""

from typing import Any

from markupsafe import Markup

from alloop.core.frame import Frame
from alloop.jobs.diagnose_job import Diagnosis, deviation_texts
from alloop.refine.shifts import SHIFTS
from alloop.report.sections.markup import (
    Section,
    bullet_list,
    figure_block,
    frame_link,
    missing_note,
    page_resource,
    paragraph,
    render_page,
    table_html,
)
from alloop.report.sections.page import frame_card
from alloop.report.sections.shift_figures import deviation_figure, shift_histograms
from alloop.report.sections.shift_sections import WORDS, element_table, shift_sentence
from alloop.report.text.formatting import plural

_MOST_ROWS = 200
_MOST_CARDS = 400  # frames that can be shown in 3D


def shift_page(found: Diagnosis, frames: tuple[Frame, ...], title: str) -> str:
    """Return the page of a diagnosis as text."""
    shifts = found.shifts
    ids = [frame.id for frame in frames]
    shown = list(dict.fromkeys([*found.by_distance(), *range(len(frames))]))
    cards = {
        ids[i][:12]: frame_card(frames[i], [_frame_sentence(found, i)])
        for i in shown[:_MOST_CARDS]
    }
    groups = {"frames": {shift: shifts.values.of(shift) for shift in SHIFTS}}
    figures = figure_block(shift_histograms(found.training, groups), WORDS)
    each = figure_block(
        deviation_figure(shifts.deviations, shifts.out, ids),
        "Each point is a frame, in the order of the file; red triangles are out. A "
        "click shows the structure in 3D.",
    )
    return render_page(
        scripts=[page_resource("3Dmol/3Dmol-min.js"), page_resource("page.js")],
        data=cards,
        title=title,
        kind="shifts from the training set",
        where=_comparison_text(found),
        lead=paragraph(shift_sentence(found), "lead") + bullet_list(found.notes()),
        sections=(
            Section("shifts", "Frames and training set", figures),
            Section("frames", "Frame by frame", each + _out_table(found, ids)),
            Section("elements", "Elements", element_table(shifts.elements)),
        ),
        foot="Written by `alloop diagnose`.",
    )


def _comparison_text(found: Diagnosis) -> str:
    training = found.training
    return (
        f"compared with {plural(training.trained, 'training frame')} · forces of the "
        f"{found.source} · graphs within {found.radius:g} Å"
    )


def _frame_sentence(found: Diagnosis, frame: int) -> str:
    texts = deviation_texts(found.shifts, frame)
    parts = (f"{shift} {text} σ" for shift, text in zip(SHIFTS, texts, strict=True))
    out = ", ".join(found.shifts.out_by(frame)) or "nothing"
    return f"frame {frame}: {', '.join(parts)}; out by {out}"


def _out_table(found: Diagnosis, ids: list[str]) -> Markup:
    order = found.by_distance()
    if not order:
        return missing_note("No frame is out by any shift.")
    rows: list[list[Any]] = [
        [
            str(i),
            frame_link(ids[i]),
            found.formulas[i],
            ", ".join(found.shifts.out_by(i)),
            *deviation_texts(found.shifts, i),
        ]
        for i in order[:_MOST_ROWS]
    ]
    head = ("frame", "id", "formula", "out by", *(f"{shift}, σ" for shift in SHIFTS))
    table = table_html(head, rows, words=4)
    if len(order) > _MOST_ROWS:
        table += paragraph(f"The {_MOST_ROWS} farthest of {len(order)} frames.")
    return table
