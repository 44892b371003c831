"""The part of the report on money: CPU seconds by part, and the price of a label."""

from collections.abc import Sequence

from markupsafe import Markup

from alloop.loop.history import History
from alloop.loop.prices import by_part
from alloop.report import figures
from alloop.report.bills import Bill, bills
from alloop.report.facts import title
from alloop.report.markup import Section, figure, missing, paragraph, table
from alloop.report.words import duration, number


def spending(history: History) -> Section:
    """CPU seconds by part, and the price of a label."""
    name = "What it cost"
    parts = by_part(history)
    if not sum(parts.values()):
        return Section("cpu", name, missing("Nothing has been computed yet."))
    how = (
        "CPU seconds spent by this campaign, child processes included; labels from a "
        "cache cost nothing. Preparation is relaxing the molecules and the MD that "
        "made the test set, at the cheap level; noise floor is labels made again."
    )
    body = figure(figures.spending(parts), how) + _bills(history, bills(history))
    return Section("cpu", name, body)


def _bills(history: History, found: Sequence[Bill]) -> Markup:
    if not found:
        return Markup("")
    rows = [
        (
            *(title(history, x.fidelity), x.molecule, str(x.labels)),
            *(duration(x.each), duration(x.most), number(x.peak_mb)),
            f"{number(x.factor)} (n = {x.foretold})" if x.factor else "–",
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
    shown = table(head, rows, words=2)
    return shown + paragraph(note) if any(x.factor for x in found) else shown
