"""Display of the `train` command: progress and the errors of the model."""

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from alloop.cli.campaign_paths import short_path
from alloop.cli.console import out, say
from alloop.core.text import printable_line
from alloop.evaluation import ErrorSummary
from alloop.jobs.train_job import TrainedModel, TrainJob
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import milli_text, number_text, plural

_EVERY = 5.0  # s between two lines where there is no terminal
_COLUMNS = (
    *("frames", "energy MAE\nmeV", "RMSE\nmeV", "forces MAE\nmeV/Å", "RMSE\nmeV/Å"),
)
_TITLES = {
    "cheap": "learned from, cheap",
    "expensive": "learned from, expensive",
    "validation": "validation, expensive",
    "test": "test, expensive",
}


class TrainDisplay:
    """A progress bar for each stage on a terminal, occasional lines elsewhere."""

    def __init__(self, title: str, quiet: bool) -> None:
        self._quiet, self._title, self._said = quiet, title, time.monotonic()
        console = Console(quiet=True) if quiet else out()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            _STATE,
        )
        hidden = not console.is_terminal
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=hidden
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show_progress(self, stage: str, step: int, steps: int, loss: float) -> None:
        """Show the progress of a stage."""
        if stage not in self._tasks:
            name = printable_line(stage)
            self._tasks[stage] = self._bar.add_task(name, total=steps, state="")
        text = f"{step} of {steps}, loss {number_text(loss)}"
        self._bar.update(self._tasks[stage], total=steps, completed=step, state=text)
        plain = self._bar.disable and not self._quiet
        if plain and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            say(f"{self._title}, {stage}: {text}")


_STATE = TextColumn("{task.fields[state]}", markup=False)


def end_summary(job: TrainJob, taught: TrainedModel) -> Iterator[Any]:
    """Yield the lines to print at the end."""
    kind = job.plan.potential.kind
    if taught.before:
        yield _error_table(f"{kind} as it comes", taught.before)
    yield _error_table(kind, taught.errors)
    if "test" not in taught.errors:
        yield "no test set: what validation says, it says of frames that were looked at"
    limit = taught.generation.threshold
    frames = plural(len(job.material.validation), "validation frame")
    yield (
        f"a frame surprises above {number_text(limit)}, from {frames}"
        if limit is not None
        else f"surprise is not calibrated: {frames}"
    )
    yield f"model: {short_path(job.out)}; history: {short_path(job.history_file)}"


def _error_table(title: str, rows: Mapping[str, ErrorSummary]) -> Table:
    table = FittingTable(box=SIMPLE_HEAD, padding=0)
    table.add_column(title, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for name, found in rows.items():
        same = name != "cheap"  # each level has its own zero of energy
        energies = (found.energy_mae, found.energy_rmse) if same else (None, None)
        values = (*energies, found.force_mae, found.force_rmse)
        table.add_row(_TITLES[name], str(found.frames), *map(milli_text, values))
    return table
