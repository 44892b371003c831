"""What `label` shows: how far it is, and what came of it."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from alloop.cli.console import out, say
from alloop.cli.places import short
from alloop.core import doubts
from alloop.core.printable import printable_line
from alloop.core.records import Failure, Label
from alloop.labelling.job import Job
from alloop.labelling.many import Outcome, Progress
from alloop.labelling.out import Failed, failed, failures_file
from alloop.report.fitting import FittingTable
from alloop.report.words import duration, failures, plural, reason, spans

_EVERY = 30.0  # s between two lines where there is no terminal
_SHOWN = 60  # characters of a list of frames


class Display:
    """A bar on a terminal, a line now and then elsewhere; a context manager."""

    def __init__(self, title: str, quiet: bool) -> None:
        self.last = Progress(0)
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

    def show(self, progress: Progress) -> None:
        """How far it is now."""
        self.last = progress
        done = progress.known + progress.made
        text = state(progress)
        self._bar.update(self._task, total=progress.frames, completed=done, state=text)
        plain = self._bar.disable and not self._quiet
        if plain and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            say(f"{self._title}: {text}")


_STATE = TextColumn("{task.fields[state]}", markup=False)


def state(progress: Progress) -> str:
    """`12 of 200, 3.1/s, 1 min 2 s left, 2 timeout`."""
    parts = [f"{progress.known + progress.made} of {progress.frames}"]
    if progress.made and progress.left:
        rate = progress.made / progress.seconds
        pace = f"{rate:.2g}/s" if rate > 0.1 else f"{60 * rate:.2g}/min"
        parts += [pace, f"{duration(progress.left)} left"]
    if progress.failures:
        parts.append(failures(progress.failures))
    return ", ".join(parts)


def summary(job: Job, records: Sequence[Outcome], last: Progress) -> Iterator[Any]:
    """What to say at the end."""
    good = [record for record in records if isinstance(record, Label)]
    new = f"{last.made} tried now in {duration(last.seconds)}"
    spent = (
        f"{new} for {duration(last.cpu_seconds)} of CPU"
        if last.made
        else "all known before"
    )
    where = f" in {short(job.out)}" if good else ""
    yield f"{plural(len(good), 'label')} at {job.level.title}{where}; {spent}"
    signs = Counter(doubt for each in good for doubt in doubts.read(each.details))
    for doubt, count in signs.most_common():
        yield f"{plural(count, 'label')} in doubt: {doubt}"
    yield from _listed(job, failed(records))


def done_before(job: Job, before: Failed) -> Iterator[Any]:
    """What to say of a job that was done before."""
    count = plural(len(job.given) - len(before), "label")
    yield f"{short(job.out)} is done: {count} at {job.level.title} of these frames"
    yield from _listed(job, before)


def _listed(job: Job, missing: Failed) -> Iterator[Any]:
    if not missing:
        return
    frames = defaultdict[Failure, list[int]](list)
    for index, why in missing.items():
        frames[why.failure].append(index)
    table = FittingTable("no label", "frames", "which", "what to do", box=None)
    for failure, indices in sorted(frames.items(), key=lambda item: -len(item[1])):
        which = _cut(spans(indices))
        table.add_row(reason(failure), str(len(indices)), which, str(failure))
    yield table
    again = any(why.passing for why in missing.values())
    hint = "; --retry tries limits and crashes again" if again else ""
    yield f"failures: {short(failures_file(job.out))}{hint}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rpartition(',')[0]}, ..."
