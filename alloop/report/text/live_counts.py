"""Counts and phrases for the live display, which may start late in a campaign."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite

import numpy as np
from rich.progress_bar import ProgressBar

from alloop.core.frame import FrameId
from alloop.core.records import Failure
from alloop.core.units import Floats
from alloop.loop import events as e
from alloop.loop.commands import Stop, label_name
from alloop.loop.state import LabelState, LoopState
from alloop.report.analysis.label_facts import KINDS, label_kind, task_kinds
from alloop.report.text.event_text import event_text, training_text
from alloop.report.text.formatting import (
    STAGES,
    duration_text,
    failure_counts,
    guard_stops,
    milli_text,
    plural,
    task_text,
)


@dataclass(slots=True)
class LabelCount:
    """Labels of one kind.

    good: includes cached and doubtful labels; reasons: failures by cause.
    """

    good: int = 0
    cached: int = 0
    doubtful: int = 0
    failed: int = 0
    reasons: Counter[Failure] = field(default_factory=Counter)


@dataclass(slots=True)
class LabelCounter:
    """Counts since the display began that the loop state does not hold.

    They are reasons of failures, cached labels, and the CPU seconds of all tasks other
    than labels. examined: force errors of the last examination by frame, as its labels
    come, eV/Å.
    """

    task_seconds: float = 0.0
    examined: dict[FrameId, float] = field(default_factory=dict)
    _number: int = 0  # of the examination
    _predicted: dict[FrameId, Floats] = field(default_factory=dict)
    _cached: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, Counter[Failure]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def add_event(self, state: LoopState, event: e.Event) -> None:
        """Count an event; state: the one after the event."""
        self._count_examination(event)
        match event:
            case e.Labelled(cached=True):
                self._cached.update(_entered_kind(state, event.name))
            case e.NotLabelled(unlabelled=unlabelled):
                self._count_failure(unlabelled.failure, state, event.name)
            case e.TaskLost() if event.name not in state.open:
                self._count_failure(Failure.LOST, state, event.name)
            case (
                e.Explored()
                | e.Trained()
                | e.Prepared()
                | e.Sampled()
                | e.Rechecked()
                | e.PartTrained()
                | e.Examined()
            ):
                self.task_seconds += event.timing.cpu_seconds

    def _count_examination(self, event: e.Event) -> None:
        match event:
            case e.Examined(frames=frames):
                if event.number != self._number:  # a new examination begins
                    self._number, self.examined, self._predicted = event.number, {}, {}
                self._predicted |= {x.frame.id: x.forces for x in frames}
            case e.Labelled(label=label) if label.frame in self._predicted:
                difference = np.abs(self._predicted[label.frame] - label.forces)
                self.examined[label.frame] = float(difference.mean())

    def _count_failure(self, failure: Failure, state: LoopState, name: str) -> None:
        for kind in _entered_kind(state, name):
            self._reasons[kind][failure] += 1

    def labels(self, state: LoopState) -> dict[str, LabelCount]:
        """Return all labels of the campaign by kind."""
        counts = {kind: LabelCount(cached=self._cached[kind]) for kind in KINDS}
        for entry in state.labels.entries():
            count = counts[_label_kind(entry)]
            count.good += entry.good
            count.doubtful += entry.good and bool(entry.doubts)
            count.failed += not entry.good
        for kind, reasons in self._reasons.items():
            counts[kind].reasons = reasons
        return counts


def _label_kind(entry: LabelState) -> str:
    return label_kind(entry.purpose, entry.fidelity)


def _entered_kind(state: LoopState, name: str) -> Iterator[str]:
    """Yield the kind of the label of that name if the state has it."""
    steps = (
        state.labels.recent,
        *(block.entries for block in reversed(state.labels.blocks)),
    )
    for entry in chain.from_iterable(map(reversed, steps)):
        if name == label_name(state.levels[entry.fidelity], entry.frame):
            yield _label_kind(entry)
            return


_SHOWN = 6  # generations whose errors are shown


def budget_row(
    state: LoopState, kind: str, budget: int, count: LabelCount
) -> tuple[str, ProgressBar | str, str]:
    """Return used and allowed labels of a kind, a bar, and counts in words."""
    made = "" if not count.cached else f", {count.cached} from a cache"
    words = f"{count.good} good{made}{_doubtful_text(count)}{_bad_text(count)}"
    if not budget:
        return str(count.good), "", words
    used = state.labels.used("cheap" if kind == "cheap" else "expensive")
    bar = ProgressBar(
        total=budget,
        completed=min(used, budget),
        width=24,
        complete_style="cyan",
        finished_style="green",
    )
    return f"{used}/{budget}", bar, words


def _doubtful_text(count: LabelCount) -> str:
    return f", {count.doubtful} doubtful" if count.doubtful else ""


def _bad_text(count: LabelCount) -> str:
    if not count.failed:
        return ""
    known = failure_counts(count.reasons)
    return f", {count.failed} failed ({known})" if known else f", {count.failed} failed"


def stage_text(state: LoopState) -> str:
    """Return the current stage, or the end of the campaign and its reason."""
    if state.broken:
        return f"stopped early: {state.broken}"
    if state.finished:
        return f"finished: {state.finished}"
    stage = STAGES.get(state.stage, state.stage)
    number = state.generations.count
    return f"round {state.exploration.round}: {stage} · generation {number}"


def fact_rows(state: LoopState, counter: LabelCounter) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the facts that the panel shows."""
    yield "walkers", _walker_text(state)
    if counter.examined and not state.finished:
        yield "examination", examination_text(counter)
    yield "error", _error_text(state)
    yield "under way", task_text(task_kinds(state.open.values()))
    yield (
        "cost",
        f"{duration_text(state.labels.cpu_seconds())} of CPU time for labels, "
        f"{duration_text(counter.task_seconds)} MD, training and the rest of this run",
    )


def examination_text(counter: LabelCounter) -> str:
    """Return the force error of the examination so far, in words.

    Doubtful labels and those of an earlier run are not in it: the outcome is told
    from the store, once it is known.
    """
    errors = list(counter.examined.values())
    frames = plural(len(errors), "frame")
    return (
        f"{milli_text(sum(errors) / len(errors))} meV/Å on {frames} of MD on the "
        "model so far"
    )


def _walker_text(state: LoopState) -> str:
    if not state.exploration.walkers:
        return "none yet"
    stopped = guard_stops(state.exploration.walkers.values())
    walking = len(state.exploration.walkers) - stopped.total()
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(stopped.items()))
    words = f"{walking} walking, {stopped.total()} stopped"
    return f"{words} ({reasons})" if reasons else words


def _error_text(state: LoopState) -> str:
    errors = [
        milli_text(error) for error in state.generations.errors if isfinite(error)
    ]
    if not errors:
        return "none yet"
    more = "… → " if len(errors) > _SHOWN else ""
    return f"{more}{' → '.join(errors[-_SHOWN:])} meV/Å on the validation set"


def turn_lines(
    before: LoopState, state: LoopState, turn: e.Turn, counter: LabelCounter
) -> Iterator[str]:
    """Yield lines for everything that this turn has completed."""
    if isinstance(turn.event, e.Opened | e.Amended):
        yield event_text(turn.event, state.levels)
    elif isinstance(turn.event, e.Trained):
        yield training_text(turn.event)
    elif state.stage != before.stage and before.stage in _STEPS:
        done = f"{STAGES[before.stage]} done"
        explored = before.stage == "explore"
        what = (
            f"walkers: {_walker_text(state)}"
            if explored
            else _made_text(state, counter)
        )
        yield f"round {state.exploration.round}: {done}: {what}"
    for command in turn.commands:
        if isinstance(command, Stop):
            end = "stopped early" if command.broken else "finished"
            yield f"{end}: {command.reason}"


_STEPS = ("seed", "explore", "flag", "bias")


def _made_text(state: LoopState, counter: LabelCounter) -> str:
    return "; ".join(
        plural(count.good, f"{kind} label") + _doubtful_text(count) + _bad_text(count)
        for kind, count in counter.labels(state).items()
        if count.good or count.failed
    )
