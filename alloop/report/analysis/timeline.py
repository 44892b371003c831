"""Tasks by worker over time, and the time that is left. Pure functions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from alloop.history.label_entries import label_entries, task_entries
from alloop.history.measured_costs import PARTS, label_part
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry, TaskEntry
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_integer, config_value
from alloop.report.text.formatting import duration_text

_PAUSE = 60.0  # s without any task: the campaign was not running

_FINEST = 1500  # pixels of a lane: closer bars of one part become one


@dataclass(frozen=True, slots=True)
class TaskBar:
    """A task: its part of the campaign, its times (s since 1970) and its worker.

    number: the round of a piece of MD, the generation of a training, else 0.
    """

    part: str
    worker: str
    started: float
    ended: float
    number: int = 0


@dataclass(frozen=True, slots=True)
class RunSpan:
    """A run of the campaign on the time axis.

    began, ended: on the clock; at: its beginning on the axis; paused: the pause before
    it, in words.
    """

    began: float
    ended: float
    at: float
    paused: str = ""


@dataclass(frozen=True, slots=True)
class WorkerLane:
    """The row of a worker and its tasks."""

    row: int
    worker: str
    bars: tuple[TaskBar, ...]

    def spans(self, runs: Sequence[RunSpan]) -> Mapping[str, list[tuple[float, float]]]:
        """Return starts and lengths on the axis in seconds, by part of the campaign."""
        finest = axis_length(runs) / _FINEST
        out: dict[str, list[tuple[float, float]]] = {}
        for bar in sorted(self.bars, key=lambda bar: bar.started):
            start, stop = (
                axis_position(bar.started, runs),
                axis_position(bar.ended, runs),
            )
            spans = out.setdefault(bar.part, [])
            if spans and start - sum(spans[-1]) < finest:
                start, _ = spans.pop()
            spans.append((start, max(stop - start, finest)))
        return out


def task_bars(history: History) -> tuple[TaskBar, ...]:
    """Return all tasks that ran, in the order of the journal."""
    index = history.record_index
    labels = {label.answered: label for label in label_entries(history)}
    numbers = {x.name: x.generation for x in index.trainings}
    numbers |= {name: x.round for name, x in index.explorations.items()}
    return tuple(
        TaskBar(
            part=_task_part(task, labels),
            worker=task.timing.worker,
            started=task.timing.started,
            ended=task.timing.ended,
            number=numbers.get(task.name, 0),
        )
        for task in task_entries(history)
        if task.timing.ended > task.timing.started
    )


def round_starts(bars: Sequence[TaskBar]) -> Mapping[int, float]:
    """Return the time at which the MD of each round began."""
    out: dict[int, float] = {}
    for bar in bars:
        if bar.part == "MD":
            out[bar.number] = min(bar.started, out.get(bar.number, bar.started))
    return out


def _task_part(task: TaskEntry, labels: Mapping[int, LabelEntry]) -> str:
    if task.kind in ("Labelled", "NotLabelled"):
        label = labels[task.seq]
        return label_part(label.purpose, label.fidelity)
    return PARTS.get(task.kind, "preparation")


def worker_lanes(bars: Sequence[TaskBar]) -> tuple[WorkerLane, ...]:
    """Return a row for each worker; a process that replaced another takes its row."""
    last: list[float] = []
    rows: dict[str, int] = {}
    for worker, first, ended in _process_lives(bars):
        free = (row for row, until in enumerate(last) if until <= first)
        row = next(free, len(last))
        last[row : row + 1] = [ended]
        rows[worker] = row
    return tuple(
        WorkerLane(
            row, f"worker {row + 1}", tuple(x for x in bars if rows[x.worker] == row)
        )
        for row in range(len(last))
    )


def _process_lives(bars: Sequence[TaskBar]) -> Iterator[tuple[str, float, float]]:
    lives: dict[str, tuple[float, float]] = {}
    for bar in bars:
        first, last = lives.get(bar.worker, (bar.started, bar.ended))
        lives[bar.worker] = (min(first, bar.started), max(last, bar.ended))
    for worker, (first, last) in sorted(lives.items(), key=lambda x: (x[1], x[0])):
        yield worker, first, last


def run_spans(bars: Sequence[TaskBar]) -> tuple[RunSpan, ...]:
    """Return the runs, one after the other on the axis."""
    out: list[RunSpan] = []
    for began, ended in _run_times(bars):
        at = axis_length(out)
        paused = duration_text(began - out[-1].ended) if out else ""
        out.append(RunSpan(began, ended, at, paused))
    return tuple(out)


def _run_times(bars: Sequence[TaskBar]) -> Iterator[tuple[float, float]]:
    ordered = sorted(bars, key=lambda bar: bar.started)
    if not ordered:
        return
    until, began = ordered[0].ended, ordered[0].started
    for _, bar in pairwise(ordered):
        if bar.started > until + _PAUSE:
            yield began, until
            began = bar.started
        until = max(until, bar.ended)
    yield began, until


def axis_length(runs: Sequence[RunSpan]) -> float:
    """Return the length of all runs together, s."""
    return sum(run.ended - run.began for run in runs)


def axis_position(moment: float, runs: Sequence[RunSpan]) -> float:
    """Return the position on the axis of a moment of the clock, s."""
    run = next(x for x in reversed(runs) if x.began <= moment)
    return run.at + moment - run.began


_RECENT = 5  # rounds whose median length predicts the rest


def time_left(history: History) -> float | None:
    """Return the seconds until the budget is spent, by past rounds; None if unknown."""
    if history.state.finished:
        return 0.0
    times = [entry.time for entry, _ in history.of_kind(e.Trained, _RECENT + 1)]
    every = config_integer(history, "training", "every")
    budget = config_integer(history, "budget", "expensive")
    if not times or every is None or budget is None:
        return None
    rounds = rounds_left(
        budget - history.state.labels.used("expensive"),
        every,
        history.state.exploration.round,
        config_integer(history, "stop", "rounds"),
        turns=1 if config_value(history, "refine") is None else 2,
    )
    return predict_seconds_left(times, rounds, history.entries[-1].time)


def rounds_left(
    labels: int, every: int, done: int, limit: int | None, turns: int = 1
) -> int:
    """Return the number of rounds that remaining labels and the round limit allow.

    turns: rounds of MD for a training, 2 where each may have a refinement before it.
    """
    rounds = turns * math.ceil(max(0, labels) / every)
    return rounds if limit is None else min(rounds, max(0, limit - done))


def predict_seconds_left(
    times: Sequence[float], rounds: int, now: float
) -> float | None:
    """Return the seconds left of `rounds` rounds, None if unknown.

    times: the moments at which earlier generations were ready; now: the present moment.
    """
    lengths = [after - before for before, after in pairwise(times)]
    if not lengths:
        return None
    spent = max(0.0, now - times[-1])
    return max(0.0, rounds * median(lengths[-_RECENT:]) - spent)
