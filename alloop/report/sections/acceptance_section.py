"""The section of the report on the checks of generations."""

from math import isfinite

from markupsafe import Markup

from alloop.history.acceptance import unaccepted_sentence
from alloop.history.reader import History
from alloop.report.analysis.acceptance_facts import first_errors, set_errors
from alloop.report.sections.markup import Section, missing_note, paragraph, table_html
from alloop.report.text.event_text import check_text
from alloop.report.text.formatting import milli_text

_NAME = "Checks of generations"


def acceptance_section(history: History) -> Section:
    """Return the section on what generations passed and failed, and on sets' errors."""
    events = [event for _, event in history.generations]
    if not any(event.checks for event in events):
        why = (
            "No generation was checked; `acceptance: {}` in the campaign file does so."
        )
        return Section("acceptance", _NAME, missing_note(why))
    rows = [
        (
            str(event.generation),
            _use(history, event.generation),
            str(len(event.checks) - len(event.failed_checks)),
            "; ".join(check_text(check) for check in event.failed_checks) or "–",
        )
        for event in events
    ]
    head = ("generation", "used", "passed", "failed")
    unaccepted = unaccepted_sentence(history.state)
    note = Markup("") if unaccepted is None else paragraph(unaccepted)
    return Section(
        "acceptance", _NAME, note + table_html(head, rows) + _set_table(history)
    )


def _use(history: History, number: int) -> str:
    if number in history.state.generations.unaccepted:
        return "for exploration"
    return "yes" if number in history.state.generations.accepted else "no"


def _set_table(history: History) -> Markup:
    errors, first = set_errors(history), first_errors(history)
    if not errors:
        return Markup("")
    rows = [("before", *(milli_text(first[name]) for name in errors))]
    rows += [
        (
            str(event.generation),
            *(milli_text(found[index]) for found in errors.values()),
        )
        for index, (_, event) in enumerate(history.generations)
    ]
    limits = [
        f"{check.set_name} {check.limit:.3g}"
        for check in history.generations[-1][1].checks
        if check.set_name and isfinite(check.limit)
    ]
    text = (
        "Force MAE, meV/Å, on sets of frames that the user supplied and no training "
        "saw; before: the model that fine-tuning began with."
    )
    if limits:
        text += f" Limits of the newest generation: {', '.join(limits)}."
    return paragraph(text) + table_html(("generation", *errors), rows)
