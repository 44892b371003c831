"""Displays of the commands `label`, `train` and `md`: progress and outcome."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from alloop.cli.campaign_paths import short_path
from alloop.cli.console import output_console, print_text
from alloop.core import doubts
from alloop.core.prediction_errors import ErrorSummary
from alloop.core.records import Failure, Label
from alloop.core.text import printable_line
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    duration_text,
    failure_counts,
    failure_text,
    milli_text,
    number_text,
    plural,
    span_text,
)
from alloop.report.text.generation_history import tuning_sentences

if TYPE_CHECKING:
    from alloop.core.records import Walker
    from alloop.jobs.label_frames import LabelProgress, Outcome
    from alloop.jobs.label_job import Failed, LabelJob
    from alloop.jobs.md_job import MDProgress, MDRun
    from alloop.jobs.train_job import TrainedModel, TrainJob

_SHOWN = 60  # characters of a list of frames, at most
_LONG = 400  # characters of a message, at most
_COLUMNS = (
    *("frames", "energy MAE\nmeV", "RMSE\nmeV", "less mean\nmeV"),
    *("forces MAE\nmeV/Å", "RMSE\nmeV/Å"),
)
_TITLES = {
    "cheap": "training, cheap",
    "expensive": "training, expensive",
    "validation": "validation, expensive",
    "test": "test, expensive",
}


class ProgressDisplay:
    """Progress bars on a terminal, occasional lines elsewhere; a context manager.

    title: what all lines begin with. seconds: between two lines where there is no
    terminal. stages: True if bars stay on the terminal, with the time left.
    """

    def __init__(
        self, quiet: bool, title: str = "", seconds: float = 30.0, stages: bool = False
    ) -> None:
        self._quiet, self._title, self._seconds = quiet, title, seconds
        self._printed = time.monotonic()
        console = Console(quiet=True) if quiet else output_console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TextColumn("{task.fields[state]}", markup=False),
            *[TimeRemainingColumn()] * stages,
            console=console,
            transient=not stages,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

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

    def show_progress(self, name: str, done: int, total: int | None, text: str) -> None:
        """Show the progress of a task, in a bar of its own."""
        name = printable_line(name)
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, state="")
        task = self._tasks[name]
        self._bar.update(task, total=total, completed=done, state=text)
        plain = self._bar.disable and not self._quiet
        if plain and time.monotonic() - self._printed > self._seconds:
            self._printed = time.monotonic()
            print_text(f"{', '.join(filter(None, (self._title, name)))}: {text}")


def label_progress_text(progress: "LabelProgress") -> str:
    """Return the progress as text: `12 of 200, 3.1/s, 1 min 2 s left, 2 timeout`."""
    parts = [f"{progress.known + progress.made} of {progress.frames}"]
    if progress.made and progress.left:
        rate = progress.made / progress.seconds
        pace = f"{rate:.2g}/s" if rate > 0.1 else f"{60 * rate:.2g}/min"
        parts += [pace, f"{duration_text(progress.left)} left"]
    if progress.failures:
        parts.append(failure_counts(progress.failures))
    return ", ".join(parts)


def label_summary(
    job: "LabelJob", records: Sequence["Outcome"], last: "LabelProgress"
) -> Iterator[Any]:
    """Yield the lines to print at the end of labelling."""
    from alloop.jobs.label_job import failed_frames

    good = [record for record in records if isinstance(record, Label)]
    new = f"{last.made} computed in {duration_text(last.seconds)}"
    spent = (
        f"{new} for {duration_text(last.cpu_seconds)} of CPU"
        if last.made
        else "all were known before"
    )
    where = f" in {short_path(job.out)}" if good else ""
    yield f"{plural(len(good), 'label')} at {job.level.title}{where}; {spent}"
    signs = Counter(
        doubt for label in good for doubt in doubts.doubts_of_details(label.details)
    )
    for doubt, count in signs.most_common():
        yield f"{plural(count, 'label')} in doubt: {doubt}"
    yield from _failure_lines(job, failed_frames(records))


def finished_label_summary(job: "LabelJob", before: "Failed") -> Iterator[Any]:
    """Yield the lines to print for a job that was done before."""
    count = plural(len(job.given) - len(before), "label")
    yield (
        f"{short_path(job.out)} exists already: {count} at {job.level.title} of these "
        "frames"
    )
    yield from _failure_lines(job, before)


def _failure_lines(job: "LabelJob", missing: "Failed") -> Iterator[Any]:
    from alloop.jobs.label_job import failures_file

    if not missing:
        return
    frames = defaultdict[Failure, list[int]](list)
    for index, why in missing.items():
        frames[why.failure].append(index)
    table = FittingTable("no label", "frames", "which", "what to do", box=None)
    for failure, indices in sorted(frames.items(), key=lambda item: -len(item[1])):
        which = _shortened_text(span_text(indices))
        table.add_row(failure_text(failure), str(len(indices)), which, str(failure))
    yield table
    for indices in frames.values():
        if message := printable_line(missing[indices[0]].message):
            more = "" if len(message) <= _LONG else " ... (the file has all of it)"
            yield f"frame {indices[0]}: {message[:_LONG]}{more}"
    again = any(why.failure.is_transient for why in missing.values())
    hint = "; --retry tries failures by limits and crashes again" if again else ""
    yield f"failures: {short_path(failures_file(job.out))}{hint}"


def _shortened_text(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rpartition(',')[0]}, ..."


def train_outline(job: "TrainJob") -> Iterator[str]:
    """Yield the lines to print before a training: its frames and its length."""
    data = job.material
    cheap, costly = len(data.cheap), len(data.expensive)
    levels = f"{costly} expensive" + f" and {cheap} cheap" * bool(cheap)
    total = costly + len(data.validation)
    yield (
        f"trains on {levels} labels; {len(data.validation)} of {total} expensive "
        f"frames are held out for validation, each drawn with a chance of "
        f"{job.shares.validation:g}"
    )
    if job.preset is not None:
        yield f"preset {job.preset}: {job.length}"


def starting_table(kind: str, rows: Mapping[str, ErrorSummary]) -> Table:
    """Return the errors of a universal potential before the first step, as a table."""
    return _error_table(f"{kind}, before the first step", rows)


def train_summary(job: "TrainJob", trained: "TrainedModel") -> Iterator[Any]:
    """Yield the lines to print at the end of a training."""
    kind = job.plan.potential.kind
    if trained.before:
        yield _error_table(f"{kind} before training", trained.before)
    yield _error_table(kind, trained.errors)
    if "test" not in trained.errors:
        yield (
            "no test set: validation frames steered the training, so that their error "
            "is no test"
        )
    elif not isfinite(trained.errors["test"].force_mae):
        yield (
            "the test file has energies alone; `less mean` is their MAE after the mean "
            "error is taken off: that of the shape of a scan or path"
        )
    yield from tuning_sentences(
        {k: v for k, v in trained.history.items() if k.startswith("after/")}
    )
    limit = trained.generation.threshold
    frames = plural(len(job.material.validation), "validation frame")
    yield (
        f"surprise threshold {number_text(limit)}, calibrated on {frames}"
        if limit is not None
        else f"surprise is not calibrated: too few frames ({frames})"
    )
    limits = trained.generation.error_limits
    if limits is not None:
        median = milli_text(limits.limit(limits.centre))
        yield (
            f"limits of force errors hold for {limits.coverage:.0%} of frames like "
            f"these: {median} meV/Å at the median surprise (`alloop score`)"
        )
    yield f"model: {short_path(job.out)}; history: {short_path(job.history_file)}"


def _error_table(title: str, rows: Mapping[str, ErrorSummary]) -> Table:
    table = FittingTable(box=SIMPLE_HEAD, padding=0)
    table.add_column(title, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for name, errors in rows.items():
        same = name != "cheap"  # each level has its own zero of energy
        energies = (
            (errors.energy_mae, errors.energy_rmse, errors.energy_spread)
            if same
            else (None, None, None)
        )
        values = (*energies, errors.force_mae, errors.force_rmse)
        table.add_row(
            _TITLES.get(name, name), str(errors.frames), *map(milli_text, values)
        )
    return table


def md_progress_text(progress: "MDProgress") -> str:
    """Return the progress of MD as text.

    An example is `2000 of 10000 steps, 8 of 8 walkers moving, 640 walker-steps/s, 12 s
    left`.
    """
    rate = progress.taken / max(progress.seconds, 1e-9)
    left = (progress.steps - progress.done) / max(rate, 1e-9)
    parts = [
        f"{progress.done} of {progress.steps} steps",
        f"{progress.moving} of {plural(progress.walkers, 'walker')} moving",
        f"{rate * progress.moving:.3g} walker-steps/s",
    ]
    return ", ".join([*parts, f"{duration_text(left)} left"])


def md_summary(md_run: "MDRun", walkers: "list[Walker]") -> Iterator[str]:
    """Yield the lines to print at the end of MD."""
    from alloop.md.guards import transfer_note

    yield from md_run.notes
    if md_run.transfers:
        yield transfer_note(md_run.transfers)
    stopped = [walker for walker in walkers if walker.stopped is not None]
    for walker in stopped:
        yield f"walker {walker.index} stopped at step {walker.step}: {walker.stopped}"
    unstopped = plural(len(walkers) - len(stopped), "walker")
    file, total = short_path(md_run.out), len(walkers)
    yield f"{file}: {unstopped} of {total} reached the last step"
