"""Labelling of many frames by several child processes.

Each label is cached as soon as it is made, so that the same call resumes after any end
of this process.
"""

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self, TypeAlias

from alloop.core.atoms import chemical_symbol
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.gate import ELEMENTS
from alloop.labels.levels import check_level
from alloop.labels.programs import level_cost
from alloop.store.cache import LabelCache
from alloop.workers.cluster_plan import available_cores

Outcome: TypeAlias = Label | Unlabelled
_TICK = 0.5  # s, longest time without an item from `labels`


@dataclass(frozen=True, slots=True)
class LabelProgress:
    """The progress of labelling.

    frames: number of distinct frames; known: those with a cached answer; made: new
    answers, failures included; failures: of both, by reason; seconds: wall time since
    the start; left: expected remaining wall time, from expected costs, None before the
    first new answer; cpu_seconds: cost of the new answers.
    """

    frames: int
    known: int = 0
    made: int = 0
    failures: Mapping[Failure, int] = field(default_factory=dict)
    seconds: float = 0.0
    left: float | None = None
    cpu_seconds: float = 0.0


def label_frames(
    frames: Sequence[Frame],
    level: Level,
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    cache: LabelCache | Path | str | None = None,
    observe: Callable[[LabelProgress], None] | None = None,
) -> list[Outcome]:
    """Label frames at a level; return a label or a failure for each, in their order.

    Parameters
    ----------
    workers
        Number of child processes, of one thread each; by default that of the cores.
    limits
        Limits of one label: wall time, memory.
    cache
        A folder, or the cache there. Cached labels are not made again, and each new
        one is cached at once, so that a killed run can be resumed. Failures are cached
        too, except those that another try may avoid: limits, crashes.
    observe
        Called in this thread with the progress, after each label and twice a second.
        An exception in it ends the run, as Ctrl-C does.

    Equal frames are labelled once; the most expensive come first. Raises InputError
    where the level cannot treat these elements, StoreError where the cache cannot be
    used.
    """
    opened = (
        cache if cache is None or isinstance(cache, LabelCache) else LabelCache(cache)
    )
    by_id = {frame.id: frame for frame in frames}
    records = {} if opened is None else _cached_labels(opened, level, by_id)
    price = level_cost(level)
    todo = {
        id: price.seconds(frame) for id, frame in by_id.items() if id not in records
    }
    counts = _LabelCounts(len(by_id), records, todo, observe or _ignore_progress)
    counts.report()
    if todo:
        queue = [by_id[id] for id in _costliest_first(todo)]
        with _LabelThreads(
            level, limits or Limits(), min(workers or available_cores(), len(todo))
        ) as threads:
            threads.refuse(queue)
            for record in threads.labels(queue, opened):
                if record is not None:
                    records[record.frame] = record
                    counts.add(record)
                counts.report()
    return [records[frame.id] for frame in frames]


def _cached_labels(
    cache: LabelCache, level: Level, ids: Mapping[FrameId, Frame]
) -> dict[FrameId, Outcome]:
    records = ((id, _cached(cache, level, ids[id])) for id in ids)
    return {id: record for id, record in records if record is not None}


def _cached(cache: LabelCache, level: Level, frame: Frame) -> Outcome | None:
    """Return what the cache has of a frame, None for a label of other atoms."""
    record = cache.get(level.id, frame.id)
    alien = isinstance(record, Label) and len(record.forces) != len(frame)
    return None if alien else record


def _costliest_first(prices: Mapping[FrameId, float]) -> list[FrameId]:
    """Sort by cost, the highest first, so that no long label is left at the end.

    Frames of equal cost come in an order that depends on the process, so that two runs
    that share a cache seldom label the same frame.
    """
    salt = os.getpid()
    return sorted(prices, key=lambda id: (-prices[id], hash((salt, id))))


def _ignore_progress(_progress: LabelProgress) -> None:
    pass


class _LabelCounts:
    """Counts of a labelling run, from which its progress is reported."""

    def __init__(
        self,
        frames: int,
        cached: Mapping[FrameId, Outcome],
        prices: Mapping[FrameId, float],
        observe: Callable[[LabelProgress], None],
    ) -> None:
        self._frames, self._known = frames, len(cached)
        self._prices, self._observe = prices, observe
        self._failures = Counter(map(_record_failure, cached.values()))
        self._made, self._paid, self._cpu = 0, 0.0, 0.0
        self._began = time.monotonic()

    def add(self, record: Outcome) -> None:
        """Count a new answer."""
        self._made += 1
        self._paid += self._prices[record.frame]
        self._cpu += record.cpu_seconds
        self._failures[_record_failure(record)] += 1

    def report(self) -> None:
        """Report the progress to the observer."""
        seconds = time.monotonic() - self._began
        expected = sum(self._prices.values()) - self._paid
        left = seconds * expected / self._paid if self._paid else None
        failures = {f: n for f, n in self._failures.items() if f is not None}
        progress = LabelProgress(
            frames=self._frames,
            known=self._known,
            made=self._made,
            failures=failures,
            seconds=seconds,
            left=left,
            cpu_seconds=self._cpu,
        )
        self._observe(progress)


def _record_failure(record: Outcome) -> Failure | None:
    return record.failure if isinstance(record, Unlabelled) else None


class _LabelThreads:
    """A group of label children at one level; a context manager, to be used once."""

    def __init__(self, level: Level, limits: Limits, workers: int) -> None:
        self._level = level
        self._labellers = [IsolatedLabeller(level, limits) for _ in range(workers)]
        self._answers: SimpleQueue[Outcome] = SimpleQueue()
        self._stop = threading.Event()

    def refuse(self, frames: Sequence[Frame]) -> None:
        """Raise InputError if the level cannot treat the elements of the frames."""
        numbers = sorted({int(z) for frame in frames for z in frame.numbers})
        elements = [chemical_symbol(z) for z in numbers if z in ELEMENTS]
        if problems := check_level(self._level, elements, self._labellers[0]):
            title = self._level.title
            raise InputError(f"{title} cannot be used: {'; '.join(problems)}")

    def labels(
        self, frames: Sequence[Frame], cache: LabelCache | None
    ) -> Iterator[Outcome | None]:
        """Yield answers as they come, each cached before; None while there is none.

        Closing the iterator ends the children.
        """
        todo = deque(frames)
        with ThreadPoolExecutor(len(self._labellers), "alloop-labels") as threads:
            busy = [
                threads.submit(self._label_queue, x, todo, cache)
                for x in self._labellers
            ]
            try:
                for _ in frames:
                    yield from self._next_outcomes(busy)
            finally:
                self._stop_threads(busy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        for labeller in self._labellers:
            labeller.close()

    def _next_outcomes(
        self, busy: Sequence["Future[None]"]
    ) -> Iterator[Outcome | None]:
        while True:
            for thread in busy:
                if thread.done():
                    thread.result()  # raises the exception that ended it early
            with suppress(Empty):
                yield self._answers.get(timeout=_TICK)
                return
            yield None

    def _label_queue(
        self, labeller: IsolatedLabeller, todo: deque[Frame], cache: LabelCache | None
    ) -> None:
        while not self._stop.is_set():
            try:
                frame = todo.popleft()
            except IndexError:
                return
            record = self._label_or_cached(labeller, frame, cache)
            if self._stop.is_set() and isinstance(record, Unlabelled):
                return  # its child was ended by `_stop_threads`
            self._answers.put(_cached_record(record, cache))

    def _label_or_cached(
        self, labeller: IsolatedLabeller, frame: Frame, cache: LabelCache | None
    ) -> Outcome:
        """Return a cached label, which another run may have made by now, or make it."""
        cached = None if cache is None else _cached(cache, self._level, frame)
        return labeller.label(frame) if cached is None else cached

    def _stop_threads(self, busy: Sequence["Future[None]"]) -> None:
        self._stop.set()
        while wait(busy, timeout=_TICK / 5).not_done:
            for labeller in self._labellers:
                pid = labeller.child.pid
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)


def _cached_record(record: Outcome, cache: LabelCache | None) -> Outcome:
    """Cache a permanent record; return the cached one, maybe of another run."""
    if cache is None or not record.is_permanent:
        return record
    cache.put(record)
    return cache.get(record.level, record.frame) or record
