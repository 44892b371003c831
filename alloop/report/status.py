"""Where a campaign stands, for scripts: plain JSON values."""

from collections import Counter
from math import isfinite
from typing import Any

from alloop.core.moments import local_time
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.loop.prices import by_part
from alloop.loop.retries import lost
from alloop.loop.spool import folder_of, trainings
from alloop.report.examination import examination, sentences, threshold_sentences
from alloop.report.facts import Made, kinds, level, made, set_name, time_left
from alloop.report.noise import Floor, floors
from alloop.report.quality import quarantined
from alloop.report.words import stops
from alloop.store.lock import holder

_UNITS = {
    "errors": "eV/Å",
    "noise": "eV/Å",
    "cpu_seconds": "s",
    "time_left": "s",
}


def status(history: History) -> dict[str, Any]:
    """Stage, counts, errors and time left; every value is fit for `json.dumps`.

    errors: force MAE by generation on the frozen set in eV/Å, null where it was not
    tested; tested_on: "validation", or "test" where the user brought that set; best:
    the generation that errs least there; examination: the last one, null without; its
    errors in eV and eV/Å, alarms: frames above the flag threshold; calibration: what
    the threshold rests on, in sentences;
    quarantined: failed labels, and how many of them `alloop resume --retry` tries
    again; training: how far those under way are; noise: labels made again by
    fidelity, RMS of their forces' change in eV/Å; cpu_seconds: spent by this campaign
    on everything; time_left in seconds, null while it is not known; last_commit: ISO
    8601, local time with its offset. running: who runs it (pid, host, since), null
    where nobody does.
    """
    state = history.state
    newest = state.insights.get(state.generation)
    return {
        "name": str(history.attrs["name"]),
        "store": str(history.path),
        "parent": _parent(history),
        "stage": state.stage,
        "finished": state.finished,
        "broken": state.broken,
        "running": _running(history),
        "round": state.round,
        "generation": state.generation,
        "walkers": _walkers(history),
        "labels": {each.kind: _labels(history, each) for each in made(history)},
        "cpu_seconds": sum(by_part(history).values()),
        "errors": [_real(error) for error in state.errors],
        "tested_on": set_name(history),
        "best": state.best,
        "examination": _examination(history),
        "calibration": list(threshold_sentences(history)),
        "threshold": _real(None if newest is None else newest.threshold),
        "training": trainings(folder_of(history.path)),
        "open": dict(sorted(kinds(state.open.values()).items())),
        "excluded": len(state.excluded),
        "quarantined": _quarantined(history),
        "noise": {x.fidelity: _noise(x) for x in floors(history)},
        "last_commit": _last(history),
        "time_left": _real(time_left(history)),
        "units": _UNITS,
    }


def _parent(history: History) -> dict[str, Any] | None:
    """The store that this one was forked from, and its generation and record then."""
    forked = [event for _, event in history.of_kind(e.Forked, 1)]
    if not forked:
        return None
    last = forked[-1]
    return {
        "store": last.parent,
        "generation": last.generation,
        "record": last.seq,
    }


def _running(history: History) -> dict[str, Any] | None:
    found = holder(history.path)
    if found is None:
        return None
    since = None if found.since is None else local_time(found.since)
    return {"pid": found.pid, "host": found.host, "since": since}


def _examination(history: History) -> dict[str, Any] | None:
    found = examination(history)
    if found is None:
        return None
    errors = found.errors
    return {
        "number": found.number,
        "generation": found.generation,
        "temperature": found.temperature,
        "frames": found.frames,
        "wanted": found.wanted,
        "waiting": found.waiting,
        "missing": dict(sorted(found.missing.items())),
        "walkers": found.walkers,
        "stopped": dict(sorted(found.stopped.items())),
        "force_mae": None if errors is None else errors.force_mae,
        "force_rmse": None if errors is None else errors.force_rmse,
        "energy_mae": None if errors is None else errors.energy_mae,
        "energy_mae_offset_removed": None if errors is None else errors.energy_spread,
        "alarms": found.alarms,
        "scored": found.scored,
        "sentences": list(sentences(history)),
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
        "doubtful": each.doubtful,
        "failed": each.failed,
        "failures": {key.name: n for key, n in sorted(each.failures.items())},
        "used": each.used,
        "budget": each.budget,
        "cpu_seconds": each.cpu_seconds,
    }


def _quarantined(history: History) -> dict[str, int]:
    return {"labels": len(quarantined(history)), "retry": len(lost(history))}


def _noise(found: Floor) -> dict[str, Any]:
    return {"labels": found.n, "force_rms": _real(found.force_rms)}


def _real(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _last(history: History) -> str | None:
    if not history.entries:
        return None
    return local_time(history.entries[-1].time)
