"""The cost section of the report: CPU seconds by part, and the cost of a label."""

from collections.abc import Sequence

from markupsafe import Markup

from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.report.analysis.label_prices import LabelBill, label_bills
from alloop.report.analysis.summary_facts import level_title
from alloop.report.sections import figures
from alloop.report.sections.markup import (
    Section,
    figure_block,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.text.formatting import duration_text, number_text


def cost_section(history: History) -> Section:
    """Return the section with CPU seconds by part and the cost of labels."""
    name = "What it cost"
    parts = cpu_seconds_by_part(history)
    if not sum(parts.values()):
        return Section("cpu", name, missing_note("Nothing has been computed yet."))
    how = (
        "CPU seconds spent by this campaign, child processes included; labels from a "
        "cache cost nothing. Preparation is relaxing the molecules and the MD that "
        "made the test set, at the cheap level; noise floor is labels made again."
    )
    body = figure_block(figures.cost_figure(parts), how) + _bill_table(
        history, label_bills(history)
    )
    return Section("cpu", name, body)


def _bill_table(history: History, found: Sequence[LabelBill]) -> Markup:
    if not found:
        return Markup("")
    rows = [
        (
            *(level_title(history, x.fidelity), x.molecule, str(x.labels)),
            *(duration_text(x.each), duration_text(x.most), number_text(x.peak_mb)),
            f"{number_text(x.factor)} (n = {x.foretold})" if x.factor else "–",
        )
        for x in found
    ]
    head = (
        *("level", "molecule", "labels", "CPU each", "at most", "peak memory, MB"),
        "prediction off by a factor of",
    )
    note = (
        "Predictions are those of the cost model in force when the label was asked "
        "for; the factor is a median, 1 is perfect."
    )
    shown = table_html(head, rows, words=2)
    return shown + paragraph(note) if any(x.factor for x in found) else shown
