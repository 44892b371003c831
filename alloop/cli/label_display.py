"""Display of the `label` command: progress and outcome."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from alloop.cli.campaign_paths import short_path
from alloop.cli.console import out, say
from alloop.core import doubts
from alloop.core.records import Failure, Label
from alloop.core.text import printable_line
from alloop.jobs.label_files import Failed, failed_frames, failures_file
from alloop.jobs.label_frames import LabelProgress, Outcome
from alloop.jobs.label_job import LabelJob
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    duration_text,
    failure_counts,
    failure_text,
    plural,
    span_text,
)

_EVERY = 30.0  # s between two lines where there is no terminal
_SHOWN = 60  # characters of a list of frames, at most


class LabelDisplay:
    """A progress bar on a terminal, occasional lines elsewhere; a context manager."""

    def __init__(self, title: str, quiet: bool) -> None:
        self.last = LabelProgress(0)
        title = printable_line(title)
        self._quiet, self._title, self._said = quiet, title, time.monotonic()
        console = Console(quiet=True) if quiet else out()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            _STATE,
        )
        hidden = not console.is_terminal
        self._bar = Bar(*columns, console=console, transient=True, disable=hidden)
        self._task = self._bar.add_task(title, total=None, state="")

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

    def show_progress(self, progress: LabelProgress) -> None:
        """Show the progress."""
        self.last = progress
        done = progress.known + progress.made
        text = progress_text(progress)
        self._bar.update(self._task, total=progress.frames, completed=done, state=text)
        plain = self._bar.disable and not self._quiet
        if plain and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            say(f"{self._title}: {text}")


_STATE = TextColumn("{task.fields[state]}", markup=False)


def progress_text(progress: LabelProgress) -> str:
    """Return the progress as text: `12 of 200, 3.1/s, 1 min 2 s left, 2 timeout`."""
    parts = [f"{progress.known + progress.made} of {progress.frames}"]
    if progress.made and progress.left:
        rate = progress.made / progress.seconds
        pace = f"{rate:.2g}/s" if rate > 0.1 else f"{60 * rate:.2g}/min"
        parts += [pace, f"{duration_text(progress.left)} left"]
    if progress.failures:
        parts.append(failure_counts(progress.failures))
    return ", ".join(parts)


def end_summary(
    job: LabelJob, records: Sequence[Outcome], last: LabelProgress
) -> Iterator[Any]:
    """Yield the lines to print at the end."""
    good = [record for record in records if isinstance(record, Label)]
    new = f"{last.made} tried now in {duration_text(last.seconds)}"
    spent = (
        f"{new} for {duration_text(last.cpu_seconds)} of CPU"
        if last.made
        else "all known before"
    )
    where = f" in {short_path(job.out)}" if good else ""
    yield f"{plural(len(good), 'label')} at {job.level.title}{where}; {spent}"
    signs = Counter(
        doubt for each in good for doubt in doubts.doubts_of_details(each.details)
    )
    for doubt, count in signs.most_common():
        yield f"{plural(count, 'label')} in doubt: {doubt}"
    yield from _failure_lines(job, failed_frames(records))


def done_before(job: LabelJob, before: Failed) -> Iterator[Any]:
    """Yield the lines to print for a job that was done before."""
    count = plural(len(job.given) - len(before), "label")
    yield f"{short_path(job.out)} is done: {count} at {job.level.title} of these frames"
    yield from _failure_lines(job, before)


def _failure_lines(job: LabelJob, missing: Failed) -> Iterator[Any]:
    if not missing:
        return
    frames = defaultdict[Failure, list[int]](list)
    for index, why in missing.items():
        frames[why.failure].append(index)
    table = FittingTable("no label", "frames", "which", "what to do", box=None)
    for failure, indices in sorted(frames.items(), key=lambda item: -len(item[1])):
        which = _shortened(span_text(indices))
        table.add_row(failure_text(failure), str(len(indices)), which, str(failure))
    yield table
    again = any(why.failure.is_transient for why in missing.values())
    hint = "; --retry tries limits and crashes again" if again else ""
    yield f"failures: {short_path(failures_file(job.out))}{hint}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rpartition(',')[0]}, ..."
