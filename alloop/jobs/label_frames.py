"""Labelling of many frames by several child processes.

Each label is cached as soon as it is made, so that the same call resumes after any end
of this process.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.jobs.label_threads import LabelThreads
from alloop.labels.child.labeller import Limits
from alloop.labels.programs import level_cost
from alloop.store.cache import LabelCache
from alloop.workers.cluster_plan import available_cores

Outcome: TypeAlias = Label | Unlabelled


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
    wanted = {frame.id: frame for frame in frames}
    found = {} if opened is None else _known_labels(opened, level, wanted)
    price = level_cost(level)
    todo = {id: price.seconds(frame) for id, frame in wanted.items() if id not in found}
    counts = _LabelCounts(len(wanted), found, todo, observe or _ignore_progress)
    counts.report()
    if todo:
        queue = [wanted[id] for id in _costliest_first(todo)]
        with LabelThreads(
            level, limits or Limits(), min(workers or available_cores(), len(todo))
        ) as threads:
            threads.refuse(queue)
            for record in threads.labels(queue, opened):
                if record is not None:
                    found[record.frame] = record
                    counts.add(record)
                counts.report()
    return [found[frame.id] for frame in frames]


def _known_labels(
    cache: LabelCache, level: Level, wanted: Mapping[FrameId, Frame]
) -> dict[FrameId, Outcome]:
    records = ((id, cache.get(level.id, id)) for id in wanted)
    return {id: record for id, record in records if record is not None}


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
        known: Mapping[FrameId, Outcome],
        prices: Mapping[FrameId, float],
        observe: Callable[[LabelProgress], None],
    ) -> None:
        self._frames, self._known = frames, len(known)
        self._prices, self._observe = prices, observe
        self._failures = Counter(map(_record_failure, known.values()))
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
        counts = (self._frames, self._known, self._made)
        self._observe(LabelProgress(*counts, failures, seconds, left, self._cpu))


def _record_failure(record: Outcome) -> Failure | None:
    return record.failure if isinstance(record, Unlabelled) else None
