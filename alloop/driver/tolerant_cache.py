"""A label cache whose errors give one warning and do not end a run."""

from collections.abc import Callable
from dataclasses import dataclass

from alloop.core.errors import StoreError
from alloop.core.records import Label, Unlabelled
from alloop.store.cache import LabelCache


@dataclass(slots=True)
class TolerantCache:
    """A label cache that is used as long as it works; `warn` is called once on failure.

    After a failed write nothing more is written, after a failed read nothing more is
    read: the labels are computed again, with the same results.
    """

    cache: LabelCache
    warn: Callable[[str], None]
    _reads: bool = True
    _writes: bool = True
    _warned: bool = False

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record of a frame at a level, or None."""
        if not self._reads:
            return None
        try:
            return self.cache.get(level, frame)
        except StoreError as error:
            self._reads = False
            self._warn_once(error)
            return None

    def put(self, record: Label | Unlabelled) -> None:
        """Store a record, if that is possible."""
        if not self._writes:
            return
        try:
            self.cache.put(record)
        except StoreError as error:
            self._writes = False
            self._warn_once(error)

    def _warn_once(self, error: StoreError) -> None:
        if not self._warned:
            self.warn(f"the label cache is left aside until the next run: {error}")
        self._warned = True
