"""Numbers and events in human words. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite

from alloop.core.atoms import formula
from alloop.core.records import Failure, Walker
from alloop.loop import events as e

STAGES = {
    "new": "starting",
    "opened": "starting",
    "seed": "first labels and test set",
    "train": "training",
    "explore": "exploring",
    "flag": "labelling flagged frames",
    "bias": "labelling biased frames",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def plural(count: int, noun: str) -> str:
    """`1 label`, `2 labels`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float | None) -> str:
    """`12 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`; `?` if not known."""
    if seconds is None or not isfinite(seconds):
        return "?"
    if 0 < seconds < 0.1:
        return f"{1e3 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def roughly(seconds: float | None) -> str:
    """A guess: `less than a minute`, `about 5 min`; `?` where there is none."""
    if seconds is None or not isfinite(seconds):
        return "?"
    if seconds < _MINUTE:
        return "less than a minute"
    return f"about {duration(seconds)}"


def milli(value: float | None) -> str:
    """An error in eV or eV/Å as its thousandths with three digits; `–` without one."""
    if value is None or not isfinite(value):
        return "–"
    thousandths = value * 1e3
    return f"{thousandths:.0f}" if abs(thousandths) >= 100 else f"{thousandths:.3g}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; `–` where there is none."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = list(items) or [""]
    return f"{', '.join(head)} and {last}" if head else last


def spans(numbers: Iterable[int]) -> str:
    """Sorted whole numbers as `1–4, 7`."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in runs)


def failures(counts: Mapping[Failure, int]) -> str:
    """`2 not converged, 1 timeout`, most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0].name))
    return ", ".join(f"{count} {reason(failure)}" for failure, count in ordered)


def reason(failure: Failure) -> str:
    """`cc not converged` for `Failure.CC_NOT_CONVERGED`."""
    return failure.name.lower().replace("_", " ")


def stops(walkers: Iterable[Walker]) -> Counter[str]:
    """How many walkers each guard rail stopped."""
    return Counter(x.stopped for x in walkers if x.stopped is not None)


def sentence(turn: e.Turn, levels: Mapping[str, str]) -> str:
    """One journal record as a line; levels: level id by fidelity."""
    asked = _asked(turn.commands)
    line = happened(turn.event, levels)
    return f"{line} → {asked}" if asked else line


def happened(event: e.Event, levels: Mapping[str, str]) -> str:
    """One event as a phrase."""
    match event:
        case e.Opened():
            return _opened(event)
        case e.Amended():
            keys = ", ".join(event.changed)
            return f"configuration changed: {keys}" if keys else "taken up again"
        case e.Excluded():
            what = f"{event.fidelity} label of frame" if event.fidelity else "frame"
            return f"{what} {event.frame[:8]} excluded by hand: {event.reason}"
        case e.TaskLost():
            return f"{event.name} was lost (attempt {event.attempt}): {event.reason}"
        case _:
            return _answered(event, levels)


def _answered(event: e.Answer, levels: Mapping[str, str]) -> str:
    match event:
        case e.Prepared():
            return (
                f"molecule {event.molecule} ({formula(event.minimum)}) relaxed, "
                f"{plural(len(event.seeds), 'first frame')} drawn"
            )
        case e.Sampled():
            return f"{plural(len(event.frames), 'test frame')} drawn by MD"
        case e.Labelled() | e.NotLabelled():
            return _label(event, levels)
        case e.Explored():
            return _explored(event)
        case e.Trained():
            return trained(event)


def trained(event: e.Trained) -> str:
    """A generation and what it is worth."""
    test = event.evaluation
    error = "no test set" if test is None else _errors(test)
    return (
        f"generation {event.generation} trained: {error}, "
        f"threshold {number(event.threshold)}, {duration(event.timing.cpu_seconds)} CPU"
    )


def _errors(test: e.Evaluation) -> str:
    return (
        f"test forces {milli(test.force_mae)} meV/Å (RMSE {milli(test.force_rmse)}), "
        f"energies {milli(test.energy_mae)} meV on {len(test.frames)} frames"
    )


def _opened(event: e.Opened) -> str:
    molecules = listed(formula(frame) for frame in event.start)
    brought = f", {plural(len(event.given), 'label')} brought" if event.given else ""
    return f"campaign opened: {molecules}, seed {event.seed}{brought}"


def _label(event: e.Labelled | e.NotLabelled, levels: Mapping[str, str]) -> str:
    _, level, frame = event.name.split("/")
    fidelity = next((key for key, value in levels.items() if value == level), level)
    what = f"{fidelity} label of frame {frame[:8]}"
    if isinstance(event, e.NotLabelled):
        said = event.unlabelled
        details = f" ({said.message})" if said.message else ""
        return f"no {what}: {said.failure}{details}"
    cost = "from a cache" if event.cached else duration(event.label.cpu_seconds)
    return f"{what}: {event.label.energy:.4f} eV, {cost}"


def _explored(event: e.Explored) -> str:
    _, round_, batch, piece = event.name.split("/")
    found = len(event.candidates)
    stopped = "".join(
        f", {plural(count, 'walker')} stopped: {why}"
        for why, count in sorted(stops(event.walkers).items())
    )
    return (
        f"round {round_}, batch {batch}, piece {piece}: "
        f"{plural(len(event.walkers), 'walker')}, {event.scored} frames scored, "
        f"{plural(found, 'candidate')}, {plural(len(event.controls), 'control frame')}"
        f"{stopped}"
    )


def _asked(commands: Iterable[e.Command]) -> str:
    counts = Counter(_kind(command) for command in commands)
    return ", ".join(
        kind if kind.startswith("finished") else f"{count} × {kind}"
        for kind, count in sorted(counts.items())
    )


def _kind(command: e.Command) -> str:
    match command:
        case e.LabelFrame():
            return f"label {command.fidelity} ({command.purpose})"
        case e.Stop():
            return f"finished: {command.reason}"
        case _:
            return type(command).__name__.lower()
