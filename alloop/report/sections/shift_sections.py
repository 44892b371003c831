"""Sections of pages on shifts of frames from a training set."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from alloop.core.atoms import chemical_symbol
from alloop.jobs.diagnose_job import Diagnosis, shift_counts
from alloop.refine.shifts import SHIFTS, ElementShift
from alloop.report.analysis.campaign_shifts import CampaignShifts
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    figure_block,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.sections.shift_figures import shift_histograms
from alloop.report.text.formatting import number_text, plural

WORDS = (
    "Features: the largest leverage of an atom's descriptors, in multiples of its "
    "element's mean in training, so that new elements and new surroundings stand out. "
    "Forces: the mean length of the force on an atom. Connectivity: the distance of "
    "the spectrum of the neighbour graph from the nearest one in training. σ counts "
    "standard deviations of training frames from their mean; a frame is out where it "
    "exceeds the quantile of the training frames, the dashed line."
)


def shift_section(found: CampaignShifts | None) -> Section:
    """Return the section on the shifts of a campaign's frames."""
    name = "Shifts from the training set"
    if found is None:
        why = (
            "Nothing to compare: that takes a generation whose model can be opened "
            "here, ten frames that it was trained on, and validation frames or MD of "
            "no more than 400 atoms; `alloop diagnose` takes larger ones."
        )
        return Section("shifts", name, missing_note(why))
    intro = paragraph(
        "Validation set, examination and frames that MD proposed, against the frames "
        f"that generation {found.generation} was trained on: the shares that are "
        "out, by shift."
    )
    caption = (
        f"{WORDS} Forces are the model's; neighbours are closer than "
        f"{found.found.radius:g} Å."
    )
    figures = figure_block(
        shift_histograms(found.found.training, found.values()), caption
    )
    notes = bullet_list(found.found.notes())
    return Section(
        "shifts", name, intro + group_table(found.shares()) + notes + figures
    )


def shift_sentence(found: Diagnosis) -> str:
    """Return the number of frames that are out, by shift, as a sentence."""
    shifts = found.shifts
    count = plural(len(found.formulas), "frame")
    by = ", ".join(f"{n} by {shift}" for shift, n in shift_counts(shifts).items())
    return f"{int(shifts.outside.sum())} of {count} out: {by}."


def element_table(elements: tuple[ElementShift, ...]) -> Markup:
    """Return the table of the elements' shifts."""
    rows = [
        (
            chemical_symbol(x.number),
            str(x.atoms),
            str(x.trained) if x.trained else "none",
            number_text(x.leverage) if x.trained else "–",
            f"{x.out:.0%}" if np.isfinite(x.out) else "–",
        )
        for x in elements
    ]
    head = ("element", "atoms", "in training", "median leverage", "out")
    return table_html(head, rows)


def group_table(rows: Mapping[str, tuple[int, Mapping[str, float]]]) -> Markup:
    """Return the table of groups of frames: their number, and the shares out."""
    head = ("frames", "n", *SHIFTS)
    cells: list[list[Text]] = [
        [name, str(n), *(_share_text(shares[shift]) for shift in SHIFTS)]
        for name, (n, shares) in rows.items()
    ]
    return table_html(head, cells)


def _share_text(share: float) -> str:
    return f"{share:.0%}" if np.isfinite(share) else "–"
