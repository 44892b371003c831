"""Sentences on a frame: its origin, its labels and their errors."""

from collections.abc import Iterator, Mapping

import numpy as np

from alloop.core.atoms import hill_formula
from alloop.core.doubts import doubts_of_details
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity
from alloop.core.records import Detail, Label, Noise, Unlabelled
from alloop.core.text import local_time
from alloop.history.reader import History, JournalEntry
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import level_title
from alloop.report.analysis.explorations import Origin
from alloop.report.analysis.label_quality import doubt_policy, rescuing_rung
from alloop.report.text.event_text import noise_text
from alloop.report.text.formatting import (
    duration_text,
    failure_text,
    number_text,
    plural,
    span_text,
)


def frame_heading(frame: Frame) -> str:
    """Return the id, formula, charge and spin of a frame as a sentence."""
    charge = f", charge {frame.charge:+d}" if frame.charge else ""
    spin = f", spin {frame.spin} (2S)" if frame.spin else ""
    size = plural(len(frame), "atom")
    return f"Frame {frame.id}: {hill_formula(frame)}, {size}{charge}{spin}."


def label_error_text(
    history: History, who: str, fidelity: Fidelity, mean: float, worst: float
) -> str:
    """Return the errors of a generation on a frame, eV/Å, as a sentence."""
    return (
        f"{who} was wrong by {mean:.4f} eV/Å on average and by {worst:.4f} eV/Å at the "
        f"worst atom, against {level_title(history, fidelity)}."
    )


def proposal_text(origin: Origin, control: bool) -> str:
    """Return the origin of a frame that MD proposed, as a sentence."""
    source = "control" if control else origin.origin
    why = {
        "surprise": "among the most surprising frames there",
        "control": "drawn at random, whatever its surprise",
    }.get(source, f"just before the guard rail `{source}` stopped it")
    return (
        f"Proposed by MD on walker {origin.walker} at step {origin.step}, in round "
        f"{origin.round} on generation {origin.generation}, {why}."
    )


def surprise_text(surprise: float, known: tuple[float, str] | None) -> str:
    """Return a frame's surprise beside the threshold, as a sentence.

    known: the threshold and its basis in words, None without one.
    """
    if known is None:
        return f"Its surprise was {surprise:.3g}; there was no threshold."
    threshold, rests = known
    side = "above" if surprise > threshold else "not above"
    return (
        f"Its surprise was {surprise:.3g}, {side} the threshold of {threshold:.3g}, "
        f"which is {rests}."
    )


def error_lines(history: History, origin: Origin) -> Iterator[str]:
    """Yield the errors of the generation that proposed the frame, by its labels."""
    who = f"Generation {origin.generation}"
    for fidelity, (mean, worst) in origin.differences.items():
        if fidelity == "cheap":
            yield f"{who} differed from the cheap label by B = {mean:.4f} eV/Å."
        else:
            yield label_error_text(history, who, fidelity, mean, worst)


def generation_text(numbers: list[int]) -> str:
    """Return generations by number: `generations 1–4, 7`."""
    return f"generation{'s' * (len(numbers) > 1)} {span_text(numbers)}"


def inclusion_text(entry: JournalEntry, event: e.Included) -> str:
    """Return the end of an exclusion, as a sentence."""
    what = f" of its {event.fidelity} label" if event.fidelity else ""
    why = f": {event.reason}" if event.reason else ""
    when = local_time(entry.time)
    return f"The exclusion{what} was undone by hand on {when}{why}."


def exclusion_text(entry: JournalEntry, event: e.Excluded) -> str:
    """Return an exclusion by hand, as a sentence."""
    what = f"Its {event.fidelity} label was" if event.fidelity else "It was"
    return f"{what} excluded by hand on {local_time(entry.time)}: {event.reason}."


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
    source = (
        "supplied" if label.is_given else "from a cache" if label.cached else "made"
    )
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
        yield "It is in quarantine; another try would fail in the same way."
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
    details = (
        f"{name} {_value_text(known[key])}{_unit_text(key, known[key])}"
        for key, name in _TOLD.items()
        if known.get(key) is not None
    )
    text = ", ".join(details)
    return f" ({text})" if text else ""


def _unit_text(key: str, value: Detail) -> str:
    return _UNITS.get(key, "") if not isinstance(value, bool | str) else ""


def _value_text(value: Detail) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value) if isinstance(value, float) else str(value)
