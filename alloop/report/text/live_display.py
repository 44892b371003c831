"""Display of a running campaign: a panel on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live as Display
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from alloop.core.levels import FIDELITIES, Fidelity
from alloop.core.text import printable, printable_line
from alloop.loop import events as e
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import budget_money, labels_left
from alloop.report.analysis.label_facts import task_kinds
from alloop.report.analysis.timeline import predict_seconds_left, rounds_left
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    duration_text,
    rough_duration,
    task_text,
)
from alloop.report.text.live_counts import (
    LabelCounter,
    budget_row,
    fact_rows,
    stage_text,
    turn_lines,
)
from alloop.workers.spool import training_progress

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
        most, turns = rules.stopping.rounds, 1 if rules.refine is None else 2
        rounds = rounds_left(labels, rules.every, state.exploration.round, most, turns)
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
        known = self.seconds_left()
        if known is not None:
            return f"{rough_duration(known)} left"
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
