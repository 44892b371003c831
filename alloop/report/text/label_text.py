"""The history of one label in sentences: selection, result, quality."""

from collections.abc import Iterator, Mapping

import numpy as np

from alloop.core.doubts import doubts_of_details
from alloop.core.records import Detail, Label, Noise, Unlabelled
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.report.analysis.label_quality import doubt_policy, rescuing_rung
from alloop.report.analysis.summary_facts import level_title
from alloop.report.text.event_text import noise_text
from alloop.report.text.formatting import duration_text, failure_text, number_text

_UNITS = {
    "gap": " eV",
    "peak_mb": " MB",
    "internal": " hartree",
    "external": " hartree",
}
_TOLD = {
    "cycles": "cycles",
    "gap": "gap",
    "s2": "<S²>",
    "t1": "T1",
    "internal": "internal stability",
    "external": "external stability",
    "program": "program",
    "peak_mb": "peak memory",
}


def label_lines(
    history: History,
    label: LabelEntry,
    last: bool,
    noise: Mapping[tuple[str, str], Noise],
) -> Iterator[str]:
    """Yield the history of a label, in sentences.

    last: True if the label was not tried again since; noise: the results of making
    labels again, by level and frame.
    """
    if not label.is_given:
        yield _selection_text(history, label)
    record = label.record
    if isinstance(record, Unlabelled):
        yield _failure_text(label, record)
        yield from _quarantine_lines(record) if last else ()
    else:
        yield _made_text(label, record)
        yield from _rescue_lines(record)
        yield from _doubt_lines(history, label)
        yield from _recheck_lines(label, noise)


def _selection_text(history: History, label: LabelEntry) -> str:
    when = f"in round {label.round}" if label.round else "before the first round"
    if label.retry:
        return f"Tried again {when}."
    return (
        f"Chosen {when} for the {label.fidelity} label "
        f"({level_title(history, label.fidelity)}) as `{label.purpose}`: "
        f"{label.reason or 'no reason given'}."
    )


def _made_text(label: LabelEntry, record: Label) -> str:
    source = "brought" if label.is_given else "from a cache" if label.cached else "made"
    cost = "" if label.is_given else f", {duration_text(label.cpu_seconds)} of CPU time"
    largest = float(np.linalg.norm(record.forces, axis=1).max())
    return (
        f"{label.fidelity.capitalize()} label {source}: {record.energy:.6f} eV, "
        f"largest force {largest:.3f} eV/Å{cost}{_detail_text(record.details)}."
    )


def _failure_text(label: LabelEntry, record: Unlabelled) -> str:
    message = f" ({record.message})" if record.message else ""
    return (
        f"No {label.fidelity} label, {failure_text(record.failure)}: {record.failure}"
        f"{message}; {duration_text(record.cpu_seconds)} of CPU time"
        f"{_detail_text(record.details)}."
    )


def _quarantine_lines(record: Unlabelled) -> Iterator[str]:
    if record.is_permanent:
        yield "It is in quarantine; another try would end just so."
    else:
        yield "It is in quarantine; `alloop resume STORE --retry` tries it again."


def _rescue_lines(record: Label) -> Iterator[str]:
    if record.details.get("followed"):
        yield "The SCF ended on a saddle point at first and was led downhill from it."
    rung = rescuing_rung(record.details)
    if rung is None:
        return
    tried = str(record.details.get("rungs") or "").replace(",", ", ")
    lost = record.details.get("lost_seconds")
    cost = (
        f"; {duration_text(lost)} went to the others" if isinstance(lost, float) else ""
    )
    yield f"Rescued by the rung `{rung}`{f' ({tried})' * bool(tried)}{cost}."


def _doubt_lines(history: History, label: LabelEntry) -> Iterator[str]:
    for doubt in sorted(doubts_of_details(label.record.details)):
        yield (
            f"Doubtful: {doubt}. It is {doubt_policy(history, label.fidelity, doubt)}."
        )


def _recheck_lines(
    label: LabelEntry, noise: Mapping[tuple[str, str], Noise]
) -> Iterator[str]:
    found = noise.get((label.level, label.frame.id))
    if found is not None:
        yield f"The {label.fidelity} label {noise_text(found)}."


def _detail_text(known: Mapping[str, Detail]) -> str:
    told = (
        f"{name} {_value_text(known[key])}{_unit_text(key, known[key])}"
        for key, name in _TOLD.items()
        if known.get(key) is not None
    )
    text = ", ".join(told)
    return f" ({text})" if text else ""


def _unit_text(key: str, value: Detail) -> str:
    return _UNITS.get(key, "") if not isinstance(value, bool | str) else ""


def _value_text(value: Detail) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value) if isinstance(value, float) else str(value)
