"""The story of one label: who asked for it, what came, and what it is worth."""

from collections.abc import Iterator, Mapping

import numpy as np

from alloop.core.doubts import read
from alloop.core.records import Detail, Label, Noise, Unlabelled
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.retries import lasting
from alloop.report.facts import title
from alloop.report.phrases import moved
from alloop.report.quality import policy, rescuer
from alloop.report.words import duration, number, reason

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


def tale(
    history: History, label: Told, last: bool, noise: Mapping[tuple[str, str], Noise]
) -> Iterator[str]:
    """What is known of a label, a sentence each; last: it was not tried again since;
    noise: of the labels that were made again, by level and frame."""
    if not label.brought:
        yield _chosen(history, label)
    record = label.record
    if isinstance(record, Unlabelled):
        yield _failed(label, record)
        yield from _quarantined(record) if last else ()
    else:
        yield _made(label, record)
        yield from _rescued(record)
        yield from _doubtful(history, label)
        yield from _rechecked(label, noise)


def _chosen(history: History, label: Told) -> str:
    when = f"in round {label.round}" if label.round else "before the first round"
    if label.retry:
        return f"Tried again {when}."
    return (
        f"Chosen {when} for the {label.fidelity} label "
        f"({title(history, label.fidelity)}) as `{label.purpose}`: "
        f"{label.reason or 'no reason given'}."
    )


def _made(label: Told, record: Label) -> str:
    source = "brought" if label.brought else "from a cache" if label.cached else "made"
    cost = "" if label.brought else f", {duration(label.cpu_seconds)} of CPU time"
    largest = float(np.linalg.norm(record.forces, axis=1).max())
    return (
        f"{label.fidelity.capitalize()} label {source}: {record.energy:.6f} eV, "
        f"largest force {largest:.3f} eV/Å{cost}{_details(record.details)}."
    )


def _failed(label: Told, record: Unlabelled) -> str:
    message = f" ({record.message})" if record.message else ""
    return (
        f"No {label.fidelity} label, {reason(record.failure)}: {record.failure}"
        f"{message}; {duration(record.cpu_seconds)} of CPU time"
        f"{_details(record.details)}."
    )


def _quarantined(record: Unlabelled) -> Iterator[str]:
    if lasting(record):
        yield "It is in quarantine; another try would end just so."
    else:
        yield "It is in quarantine; `alloop resume STORE --retry` tries it again."


def _rescued(record: Label) -> Iterator[str]:
    if record.details.get("followed"):
        yield "The SCF ended on a saddle point at first and was led downhill from it."
    rung = rescuer(record.details)
    if rung is None:
        return
    tried = str(record.details.get("rungs") or "").replace(",", ", ")
    lost = record.details.get("lost_seconds")
    cost = f"; {duration(lost)} went to the others" if isinstance(lost, float) else ""
    yield f"Rescued by the rung `{rung}`{f' ({tried})' * bool(tried)}{cost}."


def _doubtful(history: History, label: Told) -> Iterator[str]:
    for doubt in sorted(read(label.record.details)):
        yield f"Doubtful: {doubt}. It is {policy(history, label.fidelity, doubt)}."


def _rechecked(label: Told, noise: Mapping[tuple[str, str], Noise]) -> Iterator[str]:
    found = noise.get((label.level, label.frame.id))
    if found is not None:
        yield f"The {label.fidelity} label {moved(found)}."


def _details(known: Mapping[str, Detail]) -> str:
    told = (
        f"{name} {_value(known[key])}{_unit(key, known[key])}"
        for key, name in _TOLD.items()
        if known.get(key) is not None
    )
    text = ", ".join(told)
    return f" ({text})" if text else ""


def _unit(key: str, value: Detail) -> str:
    return _UNITS.get(key, "") if not isinstance(value, bool | str) else ""


def _value(value: Detail) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)
