"""Display of a running campaign: a panel on a terminal, plain lines elsewhere.

It may start late in a campaign: what the loop state holds is counted from that, the
rest since the display began.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group
from rich.live import Live as Display
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alloop.core.frame import FrameId
from alloop.core.levels import FIDELITIES, Fidelity
from alloop.core.records import Failure
from alloop.core.text import printable, printable_line
from alloop.core.units import Floats
from alloop.loop import events as e
from alloop.loop.commands import Stop, label_name
from alloop.loop.rules import Rules
from alloop.loop.state import LabelState, LoopState
from alloop.loop.stopping import budget_money, labels_left
from alloop.report.analysis.label_facts import KINDS, label_kind, task_kinds
from alloop.report.analysis.timeline import predict_seconds_left, rounds_left
from alloop.report.text.event_log import event_text, training_text
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    STAGES,
    duration_text,
    failure_counts,
    guard_stops,
    milli_text,
    plural,
    rough_duration,
    task_text,
)
from alloop.workers.spool import training_progress


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
    reasons = failure_counts(count.reasons)
    return f", {count.failed} failed" + f" ({reasons})" * bool(reasons)


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
        outcome = _made_text(state, counter)
        if before.stage == "explore":
            outcome = f"walkers: {_walker_text(state)}"
        yield f"round {state.exploration.round}: {done}: {outcome}"
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


_REFRESH = 0.25  # s between two refreshes of the panel
_SILENCE = 60.0  # s without a line, at most, where there is no terminal


class LiveDisplay:
    """A live display of a campaign on a console; a context manager.

    Call `observe` after each commit and `tick` in between. clock: seconds, for tests.
    spool: folder where trainings report their progress.
    """

    def __init__(
        self,
        name: str,
        rules: Rules,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        spool: Path | None = None,
    ) -> None:
        self._name = name
        self._rules = rules
        self._console = console
        self._clock = clock
        self._spool = spool
        self._counter = LabelCounter()
        self._state = LoopState()
        self._trained: list[float] = []
        self._label_seconds = 0.0  # CPU seconds of labels in this run
        self._began = self._refreshed = self._printed = clock()
        self._display: Display | None = None
        self._shown = False

    def __enter__(self) -> Self:
        self._shown, self._began = True, self._clock()
        if self._console.is_terminal:
            self._display = Display(
                self.panel(), console=self._console, auto_refresh=False
            )
            self._display.start(refresh=True)
        return self

    @property
    def shown(self) -> bool:
        """Return True if the display has been shown."""
        return self._shown

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._display is not None:
            self._display.update(self.panel(), refresh=True)
            self._display.stop()
            self._display = None

    def observe(self, state: LoopState, turn: e.Turn) -> None:
        """Count a committed turn; state: the one after the turn."""
        before, self._state = self._state, state
        self._counter.add_event(state, turn.event)
        if isinstance(turn.event, e.Labelled) and not turn.event.cached:
            self._label_seconds += turn.event.label.cpu_seconds
        if isinstance(turn.event, e.Trained):
            self._trained.append(self._clock())
        if not self._console.is_terminal:
            for line in turn_lines(before, state, turn, self._counter):
                self._print_line(line)
        self.tick()

    def tick(self) -> None:
        """Refresh the panel, at most a few times a second.

        Without a terminal a line tells once a minute what is under way.
        """
        now = self._clock()
        if not self._console.is_terminal and now - self._printed >= _SILENCE:
            self._print_line(self._progress_line())
        if self._display is not None and now - self._refreshed >= _REFRESH:
            self._refreshed = now
            self._display.update(self.panel(), refresh=True)

    def seconds_left(self) -> float | None:
        """Return the seconds until the budget is spent; None if unknown.

        They follow from the lengths of past rounds.
        """
        state, rules = self._state, self._rules
        if state.finished:
            return 0.0
        labels = labels_left(state, rules, "expensive")
        limit, turns = rules.stopping.rounds, 1 if rules.refine is None else 2
        rounds = rounds_left(labels, rules.every, state.exploration.round, limit, turns)
        return predict_seconds_left(self._trained, rounds, self._clock())

    def labels_left(self) -> float | None:
        """Return the seconds that the remaining labels take; None if unknown.

        They follow from the mean cost of labels so far and the rate at which this run
        pays for them.
        """
        state, elapsed = self._state, self._clock() - self._began
        if not self._label_seconds or elapsed <= 0.0:
            return None
        seconds = 0.0
        money = budget_money(state, self._rules)  # its last label is an expensive one
        bought: Iterable[Fidelity] = ("expensive",) if money else state.levels
        for fidelity in bought:
            count = labels_left(state, self._rules, fidelity)
            paid = [
                x for x in state.labels.entries() if x.fidelity == fidelity and x.good
            ]
            prices = [x.cpu_seconds for x in paid if x.cpu_seconds > 0.0]
            if count and not prices:
                return None
            seconds += count * fmean(prices or [0.0])
        return seconds * elapsed / self._label_seconds

    def _print_line(self, line: str) -> None:
        self._printed = self._clock()
        text = f"[{duration_text(self._clock() - self._began)}] {printable(line)}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _progress_line(self) -> str:
        """Return what is under way, how far it is, and the time left."""
        budgets, used = self._budgets(), self._state.labels.used
        budget = (f"{used(x)} of {budgets[x]} {x}" for x in FIDELITIES if budgets[x])
        parts = [
            stage_text(self._state),
            f"under way: {task_text(task_kinds(self._state.open.values()))}",
            *self._trainings(),
            f"labels used: {', '.join(budget) or 'none'}",
            self._left_text(),
        ]
        return "; ".join(printable_line(part) for part in parts)

    def _trainings(self) -> list[str]:
        return [] if self._spool is None else training_progress(self._spool)

    def _budgets(self) -> dict[str, int]:
        budget = self._rules.budget
        return {"cheap": budget.cheap, "expensive": budget.expensive}

    def panel(self) -> Group:
        """Return what a terminal shows: stage, labels against budgets, facts, time."""
        where = printable_line(stage_text(self._state))
        head = Text.assemble((printable_line(self._name), "bold"), f"  {where}")
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim")
        facts.add_column()
        for name, value in fact_rows(self._state, self._counter):
            facts.add_row(name, printable(value))
        for line in self._trainings():
            facts.add_row("training", printable(line))
        facts.add_row("time", self._time_text())
        parts = (head, self._label_grid(), facts)
        return Group(*(Padding(part, (0, 0, 0, 1)) for part in parts))

    def _time_text(self) -> str:
        elapsed = duration_text(self._clock() - self._began)
        return elapsed if self._state.finished else f"{elapsed}, {self._left_text()}"

    def _left_text(self) -> str:
        seconds = self.seconds_left()
        if seconds is not None:
            return f"{rough_duration(seconds)} left"
        labels = self.labels_left()
        guess = "?" if labels is None else f"at least {duration_text(labels)}"
        return f"{guess} left"

    def _label_grid(self) -> Table:
        budgets = self._budgets()
        grid = FittingTable(
            box=None,
            padding=(0, 2),
            collapse_padding=True,
            pad_edge=False,
            show_header=False,
            first_out=("bar",),
            name_omitted=False,
        )
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(justify="right")
        grid.add_column("bar", width=24)
        grid.add_column()
        for kind, count in self._counter.labels(self._state).items():
            budget = budgets.get(kind, 0)
            if budget or count.good or count.failed:
                grid.add_row(
                    f"{kind} labels", *budget_row(self._state, kind, budget, count)
                )
        return grid
