"""The spool: finished long labels and states of trainings, kept until committed.

A spool is a label cache of one campaign, beside its store, in a folder that workers can
reach too, with a subfolder for the states of trainings. Workers that cannot reach it do
without; nothing else changes.

As a preload of Dask workers, it finishes the label in progress before a worker ends:

    dask worker --preload alloop.workers.spool ...

A scheduler started by a driver dies with it, and Dask ends a worker half a minute after
its scheduler, whatever it does. With this preload, the worker first finishes its label
and leaves it in the spool, as long as its batch job lasts.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from alloop.core.errors import StoreError
from alloop.core.records import Label, Unlabelled
from alloop.store.cache import LabelCache
from alloop.store.files import refuse_link, refuse_links
from alloop.training.state_folder import read_progress

_hand = threading.Event()  # set during a label; a worker has one task thread


class Spool:
    """The spool of the campaign whose store is at `store`, created by its driver.

    Raises StoreError where it is a link or holds one.
    """

    def __init__(self, store: Path) -> None:
        self.folder = spool_folder(store.absolute())
        refuse_link(self.folder)
        refuse_links(self.folder)
        self._cache = LabelCache(self.folder)
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record that a worker left, or None."""
        return find_label(self.folder, level, frame)

    def drop_label(self, record: Label | Unlabelled) -> None:
        """Remove a record that has been committed."""
        with contextlib.suppress(StoreError):
            self._cache.discard(record.level, record.frame)

    def drop_training(self, name: str) -> None:
        """Remove the states of a training whose model has been committed."""
        shutil.rmtree(training_folder(self.folder, name), ignore_errors=True)

    def clear(self) -> None:
        """Remove the whole spool, at the end of a campaign."""
        shutil.rmtree(self.folder, ignore_errors=True)


def spool_folder(store: Path) -> Path:
    """Return the folder of a store's spool: STORE.spool."""
    return store.with_name(store.name + ".spool")


def training_folder(folder: Path, name: str) -> Path:
    """Return the folder in a spool for the states of the training command `name`."""
    return folder / "training" / name.replace("/", "-")


def training_progress(folder: Path) -> list[str]:
    """Return the progress of the trainings in a spool, one text each."""
    reports = [read_progress(path) for path in sorted(folder.glob("training/*"))]
    return [str(progress) for progress in reports if progress is not None]


def find_label(folder: Path, level: str, frame: str) -> Label | Unlabelled | None:
    """Return the record that a worker left in the folder, or None."""
    with contextlib.suppress(StoreError):
        return LabelCache(folder).get(level, frame)
    return None


@contextlib.contextmanager
def label_in_progress() -> Iterator[None]:
    """Mark a label as in progress on this worker, for `dask_teardown`."""
    _hand.set()
    try:
        yield
    finally:
        _hand.clear()


def is_labelling() -> bool:
    """Return True if this worker is computing a label."""
    return _hand.is_set()


def leave_label(folder: Path, record: Label | Unlabelled) -> None:
    """Save a record in the spool, if this worker can reach its folder."""
    if folder.is_dir():
        with contextlib.suppress(StoreError):
            LabelCache(folder).put(record)


_LOOK = 0.2  # s


async def dask_teardown(_worker: object) -> None:
    """Wait for the label in progress; Dask awaits this before a worker ends."""
    import asyncio  # here, since `alloop status` reads spools and starts faster so

    while is_labelling():
        await asyncio.sleep(_LOOK)
