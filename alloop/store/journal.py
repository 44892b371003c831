"""The commit point: one immutable, checksummed file a record, created exclusively.

`journal/00000012` is record 12. A record that has a name is complete and on the disk,
and its name can be taken only once: a second writer that slipped past the lock fails at
its first append. The folder is at the same time a Zarr array of shape (0,), whose
members nobody lists, so that the store stays a proper Zarr hierarchy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.core.errors import DamagedError, LockedError
from alloop.store.codec import Encoded
from alloop.store.files import Files, create, sweep
from alloop.store.record import pack, unpack

FOLDER = "journal"
STAGING = "staging"
NODE: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [0],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
    "attributes": {"about": "alloop's journal: one file a record, not chunks of Zarr"},
    "storage_transformers": [],
}
_DIGITS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """Record `seq` of the journal, written at `time` (seconds since 1970)."""

    seq: int
    time: float
    record: Encoded


class Journal:
    """The records beneath one folder, numbered from 0 without a gap."""

    def __init__(
        self, folder: Path, *, writable: bool = False, files: Files | None = None
    ) -> None:
        self._folder = folder
        self._staging = folder / STAGING
        self._files = files or Files()
        self._writable = writable
        if writable:
            sweep(self._staging)

    def append(self, seq: int, record: Encoded, time: float) -> None:
        """Commit record `seq`: on return it survives a loss of power.

        Raises
        ------
        LockedError
            Another writer has committed this number.
        OSError
            The file system refused; nothing was committed, or it was and shows at the
            next opening.
        """
        if not self._writable:
            raise ValueError("this journal was opened for reading")
        header = {
            "seq": seq,
            "time": time,
            "versions": dict(record.versions),
            "frames": record.frames,
            "record": record.tree,
        }
        data = pack(header, record.arrays)
        try:
            create(self._files, self._path(seq), data, self._staging)
        except FileExistsError as error:
            raise LockedError(
                f"record {seq} of {self._folder.parent} was written by another driver; "
                "only one may run, so stop one of the two"
            ) from error

    def read(self, seq: int) -> Entry:
        """Record `seq`.

        Raises
        ------
        DamagedError
            It is missing, or its bytes are not those that were written.
        """
        entry = self._read(seq)
        if entry is None:
            raise DamagedError(f"{self._path(seq)} is missing")
        return entry

    def iterate(self, start: int = 0) -> Iterator[Entry]:
        """Records from `start` on, as far as they go; a live writer may go on."""
        while True:
            entry = self._read(start)
            if entry is None and start > self.last():
                return
            # A record that appeared in between is there now; a gap raises.
            yield entry or self.read(start)
            start += 1

    def last(self) -> int:
        """The number of the last record, -1 where there is none."""
        return max(self._numbers(), default=-1)

    def missing(self) -> list[int]:
        """Numbers below the last whose record is not there."""
        found = set(self._numbers())
        return [seq for seq in range(max(found, default=-1)) if seq not in found]

    def _numbers(self) -> Iterator[int]:
        return (int(p.name) for p in self._folder.iterdir() if p.name.isdigit())

    def _path(self, seq: int) -> Path:
        return self._folder / f"{seq:0{_DIGITS}d}"

    def _read(self, seq: int) -> Entry | None:
        path = self._path(seq)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        header, arrays = unpack(data, str(path))
        if header["seq"] != seq:
            raise DamagedError(f"{path} holds record {header['seq']}")
        record = Encoded(
            header["record"], tuple(arrays), tuple(header["frames"]), header["versions"]
        )
        return Entry(seq, header["time"], record)
