"""What workers keep until it is committed: finished long labels, trainings under way.

A spool is a label cache of one campaign, beside its store, in a folder that workers see
too; the states of a training lie beneath it. Where workers do not see it, there is no
spool, and nothing else changes.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from alloop.core.errors import StoreError
from alloop.core.records import Label, Unlabelled
from alloop.store.cache import LabelCache
from alloop.store.links import refuse_link, refuse_links
from alloop.training.progress import read_progress

_hand = threading.Event()  # a worker has one thread for tasks


class Spool:
    """The spool of the campaign whose store lies at `store`; made by its driver.

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
        """The record that a worker left, or None."""
        return find_label(self.folder, level, frame)

    def drop_label(self, record: Label | Unlabelled) -> None:
        """Forget what has been committed."""
        with contextlib.suppress(StoreError):
            self._cache.discard(record.level, record.frame)

    def drop_training(self, name: str) -> None:
        """Forget the states of a training whose model has been committed."""
        shutil.rmtree(training_folder(self.folder, name), ignore_errors=True)

    def clear(self) -> None:
        """Forget everything: the campaign is at its end."""
        shutil.rmtree(self.folder, ignore_errors=True)


def spool_folder(store: Path) -> Path:
    """Where the spool of a store lies: STORE.spool."""
    return store.with_name(store.name + ".spool")


def training_folder(folder: Path, name: str) -> Path:
    """Where a spool keeps the states of the training that a command names."""
    return folder / "training" / name.replace("/", "-")


def training_progress(folder: Path) -> list[str]:
    """How far the trainings are that keep their states in a spool."""
    found = [read_progress(each) for each in sorted(folder.glob("training/*"))]
    return [str(told) for told in found if told is not None]


def find_label(folder: Path, level: str, frame: str) -> Label | Unlabelled | None:
    """The record that a worker left in the folder, or None."""
    with contextlib.suppress(StoreError):
        return LabelCache(folder).get(level, frame)
    return None


@contextlib.contextmanager
def label_in_progress() -> Iterator[None]:
    """On a worker: a label is made meanwhile, see `alloop.workers.finish_labels`."""
    _hand.set()
    try:
        yield
    finally:
        _hand.clear()


def is_labelling() -> bool:
    """On a worker: whether a label is being made."""
    return _hand.is_set()


def leave_label(folder: Path, record: Label | Unlabelled) -> None:
    """On a worker: keep the record, if the driver's folder can be seen from here."""
    if folder.is_dir():
        with contextlib.suppress(StoreError):
            LabelCache(folder).put(record)
