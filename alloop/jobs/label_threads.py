"""Threads that label frames, each with a child process of its own."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Self, TypeAlias

from alloop.core.atoms import chemical_symbol
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.gate import ELEMENTS
from alloop.labels.levels import check_level
from alloop.store.cache import LabelCache

Outcome: TypeAlias = Label | Unlabelled
_TICK = 0.5  # s, longest time without an item from `labels`


class LabelThreads:
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
        known = None if cache is None else cache.get(self._level.id, frame.id)
        return labeller.label(frame) if known is None else known

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
