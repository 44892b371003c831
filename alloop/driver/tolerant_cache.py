"""A label cache that a run can do without: trouble there is told once, not raised."""

from collections.abc import Callable
from dataclasses import dataclass

from alloop.core.errors import StoreError
from alloop.core.records import Label, Unlabelled
from alloop.store.cache import LabelCache


@dataclass(slots=True)
class TolerantCache:
    """Labels of a cache as long as it can be used; `warn` hears of its failure once.

    After a write that failed nothing more is written, after a read that failed nothing
    more is read: labels are made anew, and are the same.
    """

    cache: LabelCache
    warn: Callable[[str], None]
    _reads: bool = True
    _writes: bool = True
    _told: bool = False

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """The record of a frame at a level, or None."""
        if not self._reads:
            return None
        try:
            return self.cache.get(level, frame)
        except StoreError as error:
            self._reads = False
            self._tell(error)
            return None

    def put(self, record: Label | Unlabelled) -> None:
        """Keep a record, if that is possible."""
        if not self._writes:
            return
        try:
            self.cache.put(record)
        except StoreError as error:
            self._writes = False
            self._tell(error)

    def _tell(self, error: StoreError) -> None:
        if not self._told:
            self.warn(f"the label cache is left aside until the next run: {error}")
        self._told = True
