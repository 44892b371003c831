"""Where a campaign stands, for scripts: plain JSON values."""

from collections import Counter
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from alloop.loop.history import History
from alloop.loop.prices import by_part
from alloop.report.facts import Made, kinds, level, made, time_left
from alloop.report.words import stops


def status(history: History) -> dict[str, Any]:
    """Stage, counts, errors and time left; every value is fit for `json.dumps`.

    errors: test force MAE by generation in eV/Å, null where it was not tested;
    cpu_seconds: spent by this campaign on everything; time_left in seconds, null while
    it is not known; last_commit: ISO 8601, UTC.
    """
    state = history.state
    return {
        "name": str(history.attrs["name"]),
        "store": str(history.path),
        "stage": state.stage,
        "finished": state.finished,
        "broken": state.broken,
        "round": state.round,
        "generation": state.generation,
        "walkers": _walkers(history),
        "labels": {each.kind: _labels(history, each) for each in made(history)},
        "cpu_seconds": sum(by_part(history).values()),
        "errors": [_real(error) for error in state.errors],
        "threshold": _real(state.threshold),
        "open": dict(sorted(kinds(state.open.values()).items())),
        "excluded": len(state.excluded),
        "last_commit": _last(history),
        "time_left": _real(time_left(history)),
        "units": {"errors": "eV/Å", "cpu_seconds": "s", "time_left": "s"},
    }


def _walkers(history: History) -> dict[str, Any]:
    walkers = history.state.walkers.values()
    stopped: Counter[str] = stops(walkers)
    walking = len(walkers) - stopped.total()
    return {"walking": walking, "stopped": dict(sorted(stopped.items()))}


def _labels(history: History, each: Made) -> dict[str, Any]:
    return {
        "level": level(history, each),
        "good": each.good,
        "cached": each.cached,
        "brought": each.brought,
        "failed": each.failed,
        "failures": {key.name: n for key, n in sorted(each.failures.items())},
        "used": each.used,
        "budget": each.budget,
        "cpu_seconds": each.cpu_seconds,
    }


def _real(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _last(history: History) -> str | None:
    if not history.entries:
        return None
    return datetime.fromtimestamp(history.entries[-1].time, UTC).isoformat()
