"""The status of a campaign for scripts, as plain JSON values."""

from collections import Counter
from math import isfinite
from typing import Any

from alloop.core.text import local_time
from alloop.history.acceptance import unaccepted_sentence
from alloop.history.label_entries import lost_labels
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.acceptance_facts import set_errors
from alloop.report.analysis.examination import (
    examination_sentences,
    last_examination,
    threshold_sentences,
)
from alloop.report.analysis.label_facts import (
    LabelTotals,
    label_totals,
    level_name,
    task_kinds,
)
from alloop.report.analysis.label_quality import (
    NoiseFloor,
    noise_floors,
    quarantined_labels,
)
from alloop.report.analysis.level_split import split_sentences
from alloop.report.analysis.limit_coverage import (
    limit_coverages,
    limit_sentences,
    newest_limits,
)
from alloop.report.analysis.refinements import refinement_sentences
from alloop.report.analysis.timeline import time_left
from alloop.report.text.formatting import guard_stops
from alloop.store.lock import lock_holder
from alloop.workers.spool import spool_folder, training_progress

_UNITS = {
    "errors": "eV/Å",
    "sets": "eV/Å",
    "noise": "eV/Å",
    "cpu_seconds": "s",
    "time_left": "s",
}


def campaign_status(history: History) -> dict[str, Any]:
    """Return stage, counts, errors and time left, fit for `json.dumps`.

    errors: force MAE by generation on the validation set in eV/Å, null where it was not
    tested; best:
    the generation with the least of these errors; rejected: generations that failed a
    check and are not used; unaccepted: those that failed one and explore all the same,
    since none was accepted before; acceptance: a sentence where none was; sets: force
    MAE by generation on each of the user's sets of acceptance, eV/Å; examination: the
    last one, or null, with errors in eV and eV/Å and alarms, the number of frames above
    the flag threshold; calibration: the basis of the threshold, in sentences;
    error_limits: what they promise and how often they held, by group of frames; split:
    what the labels of each level gained, in sentences, if that was measured;
    refinements: what test-time training changed, in sentences; quarantined: number of
    failed labels, and of those that `alloop resume --retry` tries again; training:
    progress of the trainings under way; noise: number of labels made again and RMS of
    their forces' change in eV/Å, by fidelity; cpu_seconds: spent by this campaign on
    everything; time_left in seconds, null while unknown; last_commit: ISO 8601, local
    time with its offset; running: the process that runs the campaign (pid, host,
    since), or null.
    """
    state = history.state
    newest = state.generations.summaries.get(state.generations.count)
    return {
        "name": str(history.attrs["name"]),
        "store": str(history.path),
        "parent": _fork_parent(history),
        "stage": state.stage,
        "finished": state.finished,
        "broken": state.broken,
        "running": _running_driver(history),
        "round": state.exploration.round,
        "generation": state.generations.count,
        "walkers": _walker_counts(history),
        "labels": {
            each.kind: _label_counts(history, each) for each in label_totals(history)
        },
        "cpu_seconds": sum(cpu_seconds_by_part(history).values()),
        "errors": [_finite_or_none(error) for error in state.generations.errors],
        "best": state.generations.best,
        "rejected": sorted(state.generations.rejected),
        "unaccepted": sorted(state.generations.unaccepted),
        "acceptance": unaccepted_sentence(state),
        "sets": set_errors(history),
        "examination": _examination_values(history),
        "calibration": list(threshold_sentences(history)),
        "split": list(split_sentences(history)),
        "refinements": list(refinement_sentences(history)),
        "threshold": _finite_or_none(None if newest is None else newest.threshold),
        "error_limits": _limit_values(history),
        "training": training_progress(spool_folder(history.path)),
        "open": dict(sorted(task_kinds(state.open.values()).items())),
        "excluded": len(state.labels.excluded),
        "quarantined": _failure_counts(history),
        "noise": {x.fidelity: _noise_values(x) for x in noise_floors(history)},
        "last_commit": _last_commit(history),
        "time_left": _finite_or_none(time_left(history)),
        "units": _UNITS,
    }


def _fork_parent(history: History) -> dict[str, Any] | None:
    """Return the store that this one was forked from, its generation and record.

    None where it was not forked.
    """
    forked = [event for _, event in history.of_kind(e.Forked, 1)]
    if not forked:
        return None
    last = forked[-1]
    return {
        "store": last.parent,
        "generation": last.generation,
        "record": last.seq,
    }


def _running_driver(history: History) -> dict[str, Any] | None:
    found = lock_holder(history.path)
    if found is None:
        return None
    since = None if found.since is None else local_time(found.since)
    return {"pid": found.pid, "host": found.host, "since": since}


def _examination_values(history: History) -> dict[str, Any] | None:
    found = last_examination(history)
    if found is None:
        return None
    errors = found.errors
    return {
        "number": found.number,
        "generation": found.generation,
        "temperatures": list(found.temperatures),
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
        "sentences": list(examination_sentences(history)),
    }


def _limit_values(history: History) -> dict[str, Any]:
    """Return the newest limits of errors, null without, and the frames below theirs."""
    newest = newest_limits(history)
    return {
        "promised": None if newest is None else newest[1].coverage,
        "frames": 0 if newest is None else newest[1].frames,
        "held": {x.group: {"n": x.n, "held": x.held} for x in limit_coverages(history)},
        "sentences": list(limit_sentences(history)),
    }


def _walker_counts(history: History) -> dict[str, Any]:
    walkers = history.state.exploration.walkers.values()
    stopped: Counter[str] = guard_stops(walkers)
    walking = len(walkers) - stopped.total()
    return {"walking": walking, "stopped": dict(sorted(stopped.items()))}


def _label_counts(history: History, each: LabelTotals) -> dict[str, Any]:
    return {
        "level": level_name(history, each),
        "good": each.good,
        "cached": each.cached,
        "supplied": each.supplied,
        "doubtful": each.doubtful,
        "failed": each.failed,
        "failures": {key.name: n for key, n in sorted(each.failures.items())},
        "used": each.used,
        "budget": each.budget,
        "cpu_seconds": each.cpu_seconds,
    }


def _failure_counts(history: History) -> dict[str, int]:
    return {
        "labels": len(quarantined_labels(history)),
        "retry": len(lost_labels(history)),
    }


def _noise_values(found: NoiseFloor) -> dict[str, Any]:
    return {"labels": found.n, "force_rms": _finite_or_none(found.force_rms)}


def _finite_or_none(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _last_commit(history: History) -> str | None:
    if not history.entries:
        return None
    return local_time(history.entries[-1].time)
