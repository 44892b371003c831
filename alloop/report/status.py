"""The status of a campaign: a few lines, all details with a table, and JSON values."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alloop.core.prediction_errors import ErrorSummary
from alloop.core.text import local_time
from alloop.driver.notices import last_notice
from alloop.history.acceptance import unaccepted_sentence
from alloop.history.label_entries import lost_labels
from alloop.history.measured_costs import (
    cpu_seconds_by_part,
    label_rates,
    worker_utilisation,
)
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    best_generation,
    config_integer,
    error_unit,
    generation_facts,
    has_forces,
    refinement_sentences,
    set_errors,
    set_sentences,
    split_sentences,
    supplied_validation,
)
from alloop.report.analysis.examination import (
    Examination,
    beyond_md,
    calibration_sentences,
    examination_sentences,
    last_examination,
    limit_coverages,
    limit_sentences,
    newest_limits,
    threshold_sentences,
)
from alloop.report.analysis.label_facts import (
    BUDGETED,
    LabelOutcomes,
    NoiseFloor,
    label_totals,
    level_name,
    noise_floors,
    quarantined_labels,
    task_kinds,
)
from alloop.report.analysis.outcome import TITLES, compare_controls, outcome_facts
from alloop.report.analysis.reactions import reaction_sentences
from alloop.report.analysis.timeline import time_left
from alloop.report.text.event_log import errors_text
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    STAGES,
    duration_text,
    failure_counts,
    guard_stops,
    milli_text,
    plural,
)
from alloop.store.lock import lock_holder
from alloop.workers.spool import spool_folder, training_progress

_CAPTION = (
    "exam.: examination, MD on the model; valid.: MAE and RMSE of forces on the "
    "validation set, and MAE of energies after their mean offset is removed"
)
_FIRST_OUT = ("train\nCPU", "energy\nmeV", "RMSE\nmeV/Å")
NO_CONTROLS: Mapping[str, History] = {}


def end_table(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> Table:
    """Return the generations with labels, errors and costs, controls below."""
    table = FittingTable(box=SIMPLE_HEAD, padding=0, first_out=_FIRST_OUT)
    table.caption, table.caption_justify = _CAPTION, "left"
    table.add_column(str(history.attrs["name"]), no_wrap=True)
    for column in (
        *("cheap\nlabels", "exp.\nlabels", "exam.\nmeV/Å", "valid.\nmeV/Å"),
        *("RMSE\nmeV/Å", "energy\nmeV", "train\nCPU", "labels\nCPU"),
    ):
        table.add_column(column, justify="right")
    examined = last_examination(history)
    for facts in generation_facts(history):
        table.add_row(facts.title, *_table_row(facts, examined))
    for name, control in controls.items():
        table.add_section()
        last = best_generation(control)
        if last is not None:
            row = _table_row(last, last_examination(control))
            table.add_row(TITLES.get(name, name), *row)
    return table


def _table_row(facts: GenerationFacts, examined: Examination | None) -> list[str]:
    tested = examined is not None and examined.generation == facts.generation
    errors = examined.errors if examined and tested else None
    return [
        str(facts.cheap),
        str(facts.expensive),
        milli_text(None if errors is None else errors.force_mae),
        milli_text(facts.force_mae),
        milli_text(facts.force_rmse),
        milli_text(facts.energy_mae),
        duration_text(facts.cpu_seconds),
        duration_text(facts.label_cost),
    ]


def end_lines(
    history: History,
    controls: Mapping[str, History] = NO_CONTROLS,
    report: Path | None = None,
) -> list[str]:
    """Return what a campaign reached in about five lines, and where to read more."""
    facts = outcome_facts(history, controls)
    lines = [stage_sentence(history)]
    lines += [f"{name + ':':<10}{fact}" for name, fact in facts.items()]
    lines += [f"{'note:':<10}{text}" for text in warning_sentences(history)]
    more = f"`alloop status {quote(history.place)} --all` tells the rest"
    place = ("store:", history.place) if report is None else ("report:", report)
    return [*lines, f"{place[0]:<10}{place[1]}; {more}"]


def detail_lines(
    history: History, controls: Mapping[str, History] = NO_CONTROLS
) -> list[str]:
    """Return errors, thresholds, labels, costs and controls in full, as sentences."""
    lines = [stage_sentence(history), *error_sentences(history)]
    lines += calibration_sentences(history)
    lines += [_label_sentence(history, totals) for totals in label_totals(history)]
    lines += [*split_sentences(history), *refinement_sentences(history)]
    lines += reaction_sentences(history)
    lines += [x.sentence for x in noise_floors(history)]
    lines += [_cost_sentence(history)]
    return [*lines, *(x.sentence for x in compare_controls(history, controls))]


def error_sentences(history: History) -> list[str]:
    """Return the errors of the best generation, in sentences.

    The errors on the leading frames come first, see `ControlComparison`; a warning
    follows if the best generation is not the last one.
    """
    sentences = [*examination_sentences(history), error_sentence(history)]
    if supplied_validation(history):
        sentences = [sentences[-1], *sentences[:-1]]
    return [*sentences, *set_sentences(history), *warning_sentences(history)]


def warning_sentences(history: History) -> list[str]:
    """Return warnings of generations that failed checks or got worse, in sentences."""
    unaccepted = unaccepted_sentence(history.state)
    warnings = [] if unaccepted is None else [unaccepted]
    return [*warnings, *_later_generation_warning(history)]


def _later_generation_warning(history: History) -> Iterator[str]:
    """Yield a warning where a later generation is worse than the best one."""
    generations, chosen = generation_facts(history), best_generation(history)
    if chosen is None or not history.state.generations.accepted:
        return
    last = generations[-1]
    if chosen.generation != last.generation:
        yield (
            "`export --model`, `md` and `calculator()` use generation "
            f"{chosen.generation}, which has the smallest error on the validation set "
            f"({milli_text(chosen.error)} {error_unit(history)}), and not the last "
            f"one, generation {last.generation} ({milli_text(last.error)})."
        )


def stage_sentence(history: History) -> str:
    """Return the reason for the end of a campaign, or its current stage."""
    state, name = history.state, history.attrs["name"]
    rounds = plural(state.exploration.round, "round")
    if state.broken:
        return f"{name} stopped early: {state.broken}."
    if state.finished:
        return f"{name} finished after {rounds}: {state.finished}."
    stage = STAGES.get(state.stage, state.stage)
    open_ = plural(len(state.open), "task")
    return f"{name} is not finished: {stage}, {rounds} begun, {open_} open."


def error_sentence(history: History) -> str:
    """Return the error of the best generation on the validation set, as a sentence."""
    chosen = best_generation(history)
    if chosen is None:
        return "There is no generation yet."
    if chosen.force_mae is None:
        return (
            f"Generation {chosen.generation} was not tested on a validation set: there "
            "is none."
        )
    forces = (chosen.force_mae, chosen.force_rmse)
    energies = (chosen.energy_mae, chosen.energy_absolute)
    return (
        f"Generation {chosen.generation} errs by {errors_text(forces, energies)} "
        f"on {plural(chosen.test, 'frame')} of the validation set, by which the "
        "campaign was steered."
    )


def _label_sentence(history: History, totals: LabelOutcomes) -> str:
    budget = "" if totals.budget is None else f" of {totals.budget}"
    used = f"{totals.used}{budget} used, " if totals.kind in BUDGETED else ""
    price = f", {duration_text(totals.price)} of CPU time each" if totals.price else ""
    counts = {"from a cache": totals.cached, "doubtful": totals.doubtful}
    among = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    taken = f" ({among})" if among else ""
    lost = (
        f", failed: {failure_counts(totals.failures)}"
        if totals.failed
        else ", none failed"
    )
    name = f"{totals.kind} labels ({level_name(history, totals)})"
    return f"{name}: {used}{totals.good} good{taken}{price}{lost}"


def _cost_sentence(history: History) -> str:
    parts = {
        name: value for name, value in cpu_seconds_by_part(history).items() if value > 0
    }
    total = sum(parts.values())
    if not total:
        return "CPU time: none spent yet"
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in parts.items())
    busy = worker_utilisation(history)
    return f"CPU time: {duration_text(total)}: {shares}{_busy_text(busy)}"


def _busy_text(share: float | None) -> str:
    return "" if share is None else f"; the workers were busy {share:.0%} of the time"


_UNITS = {
    "errors": "eV/Å",
    "sets": "eV/Å",
    "noise": "eV/Å",
    "cpu_seconds": "s",
    "cpu_seconds_at_end": "s",
    "time_left": "s",
}


def campaign_status(history: History) -> dict[str, Any]:
    """Return stage, counts, errors and time left, fit for `json.dumps`.

    errors: force MAE by generation on the validation set in eV/Å, null where it was not
    tested; best: the generation with the smallest of these errors; rejected:
    generations that failed a check and are not used; unaccepted: those that failed one
    and explore all the same, since no generation before was accepted; acceptance: a
    sentence where no generation is accepted; sets: force MAE by generation on each of
    the user's sets of acceptance, eV/Å; examination: the last one, or null, with errors
    in eV and eV/Å and alarms, the number of frames above the flag threshold;
    calibration: the basis of the threshold, in sentences; error_limits: the promised
    share and how often limits held, by group of frames; split: gains from the labels of
    each level, in sentences, if measured; refinements: effects of test-time training,
    in sentences; quarantined: number of failed labels, and of those that `alloop resume
    --retry` tries again; training: progress of the trainings under way; noise: number
    of labels made again and RMS of their forces' change in eV/Å, by fidelity;
    state: running, paused, stopped (for a reason that has to be mended) or finished;
    labels_per_hour: good labels made in the last hour of work, by fidelity;
    cpu_seconds_at_end: once the budget of expensive labels is spent, in proportion, or
    null; utilisation: share of their time that workers were busy, or null;
    notice: the newest one (about, text, time), or null;
    cpu_seconds: spent by this campaign on everything; time_left in seconds, null while
    unknown; last_commit: ISO 8601, local time with its offset; running: the process
    that runs the campaign (pid, host, since), or null.
    """
    return {
        **_progress_values(history),
        "labels": {x.kind: _label_counts(history, x) for x in label_totals(history)},
        "labels_per_hour": dict(sorted(label_rates(history).items())),
        "cpu_seconds": sum(cpu_seconds_by_part(history).values()),
        "cpu_seconds_at_end": _finite_or_none(_final_cpu_seconds(history)),
        "utilisation": _finite_or_none(worker_utilisation(history)),
        **_generation_values(history),
        "training": training_progress(spool_folder(history.path)),
        "open": dict(sorted(task_kinds(history.state.open.values()).items())),
        "excluded": len(history.state.labels.excluded),
        "quarantined": _failure_counts(history),
        "noise": {x.fidelity: _noise_values(x) for x in noise_floors(history)},
        "notice": _notice_values(history),
        "last_commit": _last_commit(history),
        "time_left": _finite_or_none(time_left(history)),
        "units": _UNITS,
    }


def _progress_values(history: History) -> dict[str, Any]:
    state = history.state
    return {
        "name": str(history.attrs["name"]),
        "store": history.place,
        "parent": _fork_parent(history),
        "state": campaign_state(state, _running_driver(history) is not None),
        "stage": state.stage,
        "finished": state.finished,
        "broken": state.broken,
        "running": _running_driver(history),
        "round": state.exploration.round,
        "generation": state.generations.count,
        "walkers": _walker_counts(history),
    }


def _generation_values(history: History) -> dict[str, Any]:
    generations = history.state.generations
    newest = generations.summaries.get(generations.count)
    in_forces = has_forces(history)
    return {
        "errors": [
            _finite_or_none(error) if in_forces else None
            for error in generations.errors
        ],
        "best": generations.best,
        "rejected": sorted(generations.rejected),
        "unaccepted": sorted(generations.unaccepted),
        "acceptance": unaccepted_sentence(history.state),
        "sets": set_errors(history),
        "examination": _examination_values(history),
        "calibration": list(threshold_sentences(history)),
        "split": list(split_sentences(history)),
        "refinements": list(refinement_sentences(history)),
        "threshold": _finite_or_none(None if newest is None else newest.threshold),
        "error_limits": _limit_values(history),
    }


def _final_cpu_seconds(history: History) -> float | None:
    """Return the CPU seconds of the whole campaign, None where it cannot be told."""
    spent = sum(cpu_seconds_by_part(history).values())
    if history.state.finished:
        return spent
    used = history.state.labels.used("expensive")
    budget = config_integer(history, "budget", "expensive")
    return spent * max(budget, used) / used if used and budget else None


STATES = ("running", "paused", "stopped", "finished")


def campaign_state(state: LoopState, running: bool) -> str:
    """Return the one of `STATES` that a campaign is in."""
    if running:
        return "running"
    if state.broken:
        return "stopped"
    return "finished" if state.finished else "paused"


def _notice_values(history: History) -> dict[str, str] | None:
    notice = last_notice(history.path)
    if notice is None:
        return None
    text = {key: str(notice.get(key, "")) for key in ("about", "text")}
    return {**text, "time": local_time(float(notice["time"]))}


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
    holder = lock_holder(history.path)
    if holder is None:
        return None
    since = None if holder.since is None else local_time(holder.since)
    return {"pid": holder.pid, "host": holder.host, "since": since}


def _examination_values(history: History) -> dict[str, Any] | None:
    examination = last_examination(history)
    if examination is None:
        return None
    errors = examination.errors
    return {
        "number": examination.number,
        "generation": examination.generation,
        "temperatures": list(examination.temperatures),
        "frames": examination.frames,
        "wanted": examination.wanted,
        "waiting": examination.waiting,
        "missing": dict(sorted(examination.missing.items())),
        "walkers": examination.walkers,
        "stopped": dict(sorted(examination.stopped.items())),
        **_force_errors(errors),
        "energy_mae": None if errors is None else errors.energy_mae,
        "energy_mae_offset_removed": None if errors is None else errors.energy_spread,
        "alarms": examination.alarms,
        "scored": examination.scored,
        "conformers": examination.motion.conformers,
        "rotamers": examination.motion.rotamers,
        "transitions": examination.motion.transitions,
        "beyond": _beyond_values(history),
        "sentences": list(examination_sentences(history)),
    }


def _beyond_values(history: History) -> dict[str, Any] | None:
    beyond = beyond_md(history)
    if beyond is None:
        return None
    return {
        "frames": beyond.frames,
        "waiting": beyond.waiting,
        "missing": dict(sorted(beyond.missing.items())),
        **_force_errors(beyond.errors),
    }


def _force_errors(errors: ErrorSummary | None) -> dict[str, float | None]:
    return {
        "force_mae": None if errors is None else errors.force_mae,
        "force_rmse": None if errors is None else errors.force_rmse,
    }


def _limit_values(history: History) -> dict[str, Any]:
    """Return the newest limits of errors, and how many frames were below theirs."""
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


def _label_counts(history: History, totals: LabelOutcomes) -> dict[str, Any]:
    return {
        "level": level_name(history, totals),
        "good": totals.good,
        "cached": totals.cached,
        "supplied": totals.supplied,
        "doubtful": totals.doubtful,
        "failed": totals.failed,
        "failures": {key.name: n for key, n in sorted(totals.failures.items())},
        "used": totals.used,
        "budget": totals.budget,
        "cpu_seconds": totals.cpu_seconds,
    }


def _failure_counts(history: History) -> dict[str, int]:
    return {
        "labels": len(quarantined_labels(history)),
        "retry": len(lost_labels(history)),
    }


def _noise_values(floor: NoiseFloor) -> dict[str, Any]:
    return {"labels": floor.n, "force_rms": _finite_or_none(floor.force_rms)}


def _finite_or_none(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _last_commit(history: History) -> str | None:
    if not history.entries:
        return None
    return local_time(history.entries[-1].time)
