"""Numbers and counts as text for people. Pure functions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite

from alloop.core.records import Failure, Refinement, Walker
from alloop.core.text import plural as plural

STAGES = {
    "new": "starting",
    "opened": "starting",
    "seed": "first labels and validation set",
    "train": "training",
    "explore": "exploring",
    "flag": "labelling flagged frames",
    "bias": "labelling biased frames",
    "examine": "examination",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def task_text(counts: Mapping[str, int]) -> str:
    """Return open tasks by kind as text: `3 cheap labels, 1 piece of MD`."""
    nouns = {"MD": "piece of MD"}
    named = (plural(n, nouns.get(kind, kind)) for kind, n in sorted(counts.items()))
    return ", ".join(named) or "nothing"


def duration_text(seconds: float | None) -> str:
    """Return a duration: `12 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`; `?` if unknown."""
    if seconds is None or not isfinite(seconds):
        return "?"
    if 0 < seconds < 0.1:
        return f"{1e3 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < _MINUTE:
        return f"{rounded} s"
    if rounded < _HOUR:
        return f"{rounded // _MINUTE} min {rounded % _MINUTE} s"
    if rounded < _DAY:
        return f"{rounded // _HOUR} h {rounded % _HOUR // _MINUTE} min"
    return f"{rounded // _DAY} d {rounded % _DAY // _HOUR} h"


def rough_duration(seconds: float | None) -> str:
    """Return a rough duration: `less than a minute`, `about 5 min`; `?` if unknown."""
    if seconds is None or not isfinite(seconds):
        return "?"
    if seconds < _MINUTE:
        return "less than a minute"
    return f"about {duration_text(seconds)}"


def milli_text(value: float | None) -> str:
    """Return an error in thousandths (meV, meV/Å), three digits; `–` without one."""
    if value is None or not isfinite(value):
        return "–"
    thousandths = value * 1e3
    return f"{thousandths:.0f}" if abs(thousandths) >= 100 else f"{thousandths:.3g}"


def tiny_text(value: float | None) -> str:
    """Return the same as `milli_text`, but `<0.001` below a millionth."""
    return "<0.001" if value is not None and 0 <= value < 1e-6 else milli_text(value)


def number_text(value: float | None, digits: int = 3) -> str:
    """Return a number with that many significant digits; `–` without one."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def and_list(items: Iterable[str]) -> str:
    """Return the items as a list in words: `a`, `a and b`, or `a, b and c`."""
    *head, last = list(items) or [""]
    return f"{', '.join(head)} and {last}" if head else last


def span_text(numbers: Iterable[int]) -> str:
    """Return whole numbers, sorted, as ranges: `1–4, 7`."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in runs)


def failure_counts(counts: Mapping[Failure, int]) -> str:
    """Return failures, the most frequent first: `2 not converged, 1 timeout`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0].name))
    return ", ".join(f"{count} {failure_text(failure)}" for failure, count in ordered)


def failure_text(failure: Failure) -> str:
    """Return a failure in words: `cc not converged` for `Failure.CC_NOT_CONVERGED`."""
    return failure.name.lower().replace("_", " ")


def guard_stops(walkers: Iterable[Walker]) -> Counter[str]:
    """Return the number of walkers that each guard stopped, by `guard_text`."""
    return Counter(guard_text(x.stopped) for x in walkers if x.stopped is not None)


_GUARDS = {
    "eV/Å above": "by a force above {} eV/Å",
    "as hot as": "hotter than {} times the thermostat",
    "times the threshold": "by surprise above {} times the threshold",
    "a bond at": "by a bond longer than {} of its covalent radii",
    "atoms at": "by atoms closer than {} of their covalent radii",
    "a cell": "by a cell {} times as large or small",
}


def guard_text(stop: str) -> str:
    """Return the guard of a stop with its limit, without the measured value.

    `force 41.9 eV/Å above 30` and `force 58.4 eV/Å above 30` are the same guard.
    """
    for words, text in _GUARDS.items():
        if words in stop:
            limit = re.search(r"(?:above|below) (\S+)$", stop)
            return text.format(limit[1]) if limit else stop
    return stop


def refinement_text(refinement: Refinement) -> str:
    """Return a test-time training as a phrase: what was kept, and what it changed."""
    share, frames = refinement.share, plural(refinement.frames, "cheap label")
    outcome = f"{share:.0%} of the step kept" if share else "rolled back"
    cheap, held = (
        f"{milli_text(before)} → {milli_text(after)} meV/Å"
        for before, after in (refinement.cheap, refinement.held)
    )
    return f"{outcome}: {frames} {cheap}, held-out expensive labels {held}"
