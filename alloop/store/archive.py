"""The store of one campaign: its journal, its models and its attributes.

There is one writer at a time, and any number of readers beside it.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from alloop.core.errors import DamagedError, StoreError
from alloop.files.targets import refuse_inside_store
from alloop.store import packs, root
from alloop.store.addresses import refuse_remote
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.files import FileSystem, explain_errors, refuse_link, refuse_links
from alloop.store.fold_file import read_fold, write_fold
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.lock import LOCK as LOCK
from alloop.store.lock import StoreLock
from alloop.store.models import model_ids, read_model, write_model
from alloop.store.remote import fetch_model
from alloop.store.root import build_store
from alloop.store.set_aside import foreign_record, set_columns_aside

Mode = Literal["r", "w"]
_SEALING = 64  # loose records from which a clean stop seals them
_NEAR = 16  # gaps up to this many records are read through, not skipped


class StoredRecord(NamedTuple):
    """A record with its number and the time (seconds since 1970) it was written."""

    seq: int
    time: float
    record: Any


class Archive:
    """A store, opened with `create` or `open`; a context manager.

    attrs: the attributes given to `create`, with the format and version of alloop.
    files: the file system calls that it makes.
    """

    def __init__(self, path: Path, codec: Codec, mode: Mode, files: FileSystem) -> None:
        self.path = path
        self.mode = mode
        self._codec = codec
        self.files = files
        self._failed = False
        if mode == "w":
            refuse_remote(path)
        with explain_errors(path):
            refuse_link(path / root.NODE_FILE)
            node = root.read_root(path)
            refuse_links(path)
            root.refuse_altered(path, node)
            self.attrs = root.node_attributes(node)
            self._lock = StoreLock(path / FOLDER / LOCK, path) if mode == "w" else None
        with contextlib.ExitStack() as undo:
            undo.callback(self.release)
            with explain_errors(path):
                self._journal = Journal(
                    path / FOLDER, writable=mode == "w", files=files
                )
                self._next = self._last_record() if mode == "w" else 0
                if mode == "w":
                    root.upgrade_format(path, files)
                    with contextlib.suppress(OSError):  # only a backup
                        root.write_copy(path, files)
                    self._set_aside()
            undo.pop_all()

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        attrs: Mapping[str, Any],
        codec: Codec,
        files: FileSystem | None = None,
    ) -> Self:
        """Create a store and open it for writing; on failure, leave nothing behind.

        Raises:
        ------
        StoreError
            There is something at `path`, or it cannot be written.
        InputError
            `path` is within another store.
        """
        path, files = Path(path), files or FileSystem()
        with explain_errors(path):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise StoreError(f"{path} exists already; choose another place")
            refuse_inside_store(path)
            build_store(path, dict(attrs), files)
        return cls.open(path, codec, "w", files=files)

    @classmethod
    def open(
        cls,
        path: Path | str,
        codec: Codec,
        mode: Mode = "r",
        *,
        files: FileSystem | None = None,
    ) -> Self:
        """Open a store; mode "w" takes the lock, mode "r" needs no right to write.

        Raises:
        ------
        StoreError
            It is not a store, has a newer format, or contains links.
        LockedError
            Another driver is running on it.
        DamagedError
            Its attributes were altered, or a record is missing (mode "w" only; a reader
            gets the error when it reaches the record).
        """
        return cls(Path(path), codec, mode, files or FileSystem())

    @property
    def signature(self) -> bytes:
        """The bytes that this writer alone put into the lock; b"" for a reader."""
        return b"" if self._lock is None else self._lock.signature

    def confirm(self) -> None:
        """Raise LockedError if another driver has taken over; a reader may not ask.

        Whatever is written beside the journal asks first.
        """
        if self._lock is None:
            raise ValueError(f"{self.path} is not open for writing")
        self._lock.confirm()

    def append(self, record: object) -> int:
        """Commit a record and return its number; on return it survives a power loss."""
        return self._append(self._codec.encode(record), time.time())

    def append_entry(self, entry: RawEntry) -> int:
        """Commit a record of another store as it is, with its time.

        It must be the next one. Returns its number.
        """
        if entry.seq != self._next:
            raise ValueError(f"expected record {self._next}, got {entry.seq}")
        return self._append(entry.record, entry.time)

    def _append(self, encoded: EncodedRecord, moment: float) -> int:
        lock = self._held_lock()
        seq = self._next
        self._failed = True
        with explain_errors(self.path):
            self._journal.append(seq, encoded, moment)
            lock.confirm()  # the file name may be free only because it was sealed
        self._failed = False
        self._next = seq + 1
        if self._next % packs.RECORDS == 0:
            self.seal()
        return seq

    def seal(self, minimum: int = 1) -> None:
        """Put loose records into packs, unless there are fewer than `minimum`.

        `append` does so every `packs.RECORDS` records, and `close` at a clean stop.
        Errors of the file system are ignored: the records are safe as they are, and a
        later call seals them.
        """
        self._held_lock()
        with contextlib.suppress(OSError):
            self._journal.seal(minimum)

    def entries(self, start: int = 0) -> Iterator[RawEntry]:
        """Yield all records from `start` on as they are stored, checked for damage."""
        with explain_errors(self.path):
            yield from self._journal.iterate(start)

    def records(self, start: int = 0) -> Iterator[StoredRecord]:
        """Yield all records from `start` on, with those that a live writer adds."""
        with explain_errors(self.path):
            for entry in self._journal.iterate(start):
                yield self._decode_entry(entry)

    def select(self, numbers: Iterable[int]) -> Iterator[StoredRecord]:
        """Yield the records with these numbers, which must increase.

        Records in between are not decoded, and large gaps are not read.
        """
        with explain_errors(self.path):
            for entry in self._selected(numbers):
                yield self._decode_entry(entry)

    def digest(self, seq: int) -> str | None:
        """Return the checksum of a record, which identifies its content.

        None if the record is missing or damaged.
        """
        with contextlib.suppress(StoreError, OSError):
            return self._journal.read(seq).digest.hex() if seq >= 0 else None
        return None

    def last(self) -> int:
        """Return the number of the last record, -1 if there is none."""
        with explain_errors(self.path):
            return self._journal.last()

    def put_model(self, model_id: str, blob: bytes) -> None:
        """Store a model durably; one that is already there is kept as it is."""
        self._held_lock()
        with explain_errors(self.path):
            node = write_model(self.path, model_id, blob, self.files)
            members = root.node_members(root.read_root(self.path))
            name = f"{root.MODELS}/{model_id}"
            if name not in members:
                root.publish_members(self.path, {**members, name: node}, self.files)

    def model(self, model_id: str) -> bytes:
        """Return the bytes of a model; raise StoreError if there is none."""
        fetch_model(self.path, model_id)
        return read_model(self.path, model_id)

    def model_ids(self) -> tuple[str, ...]:
        """Return the ids of all models, sorted."""
        with explain_errors(self.path):
            return model_ids(self.path)

    def put_fold(self, name: str, version: str, seq: int, blob: bytes) -> None:
        """Save a state computed from the records up to `seq`, replacing an older one.

        name: letters and digits; version: of the code that computed it.
        """
        self._held_lock()
        with explain_errors(self.path):
            origin = (version, seq, self._journal.fingerprint(seq))
            write_fold(self.path, name, origin, blob, self.files)

    def fold(
        self, name: str, version: str, *, foreign: bool = False
    ) -> tuple[int, bytes] | None:
        """Return the last record that a saved fold covers, and its bytes.

        None if there is none, or it is damaged, of another version, from a journal that
        went on differently, or (unless `foreign`) saved by another user or elsewhere:
        then begin at the first record.
        """
        return read_fold(self.path, name, version, self._journal, foreign=foreign)

    def close(self) -> None:
        """Seal the loose records if there are enough of them, and release the lock."""
        try:
            if self._lock is not None and not self._failed:
                self.seal(_SEALING)
        finally:
            self.release()

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.release()

    def _selected(self, numbers: Iterable[int]) -> Iterator[RawEntry]:
        last, run = -1 - _NEAR, self._journal.iterate(0)
        for number in numbers:
            if number - last > _NEAR:
                run = self._journal.iterate(number)
            yield next(entry for entry in run if entry.seq == number)
            last = number

    def _last_record(self) -> int:
        missing = self._journal.missing()
        if missing:
            raise DamagedError(
                f"record {missing[0]} of {self.path} is missing; "
                "run `alloop doctor` on the store"
            )
        return self._journal.last() + 1

    def _set_aside(self) -> None:
        """Move columns of another history away.

        They must be neither continued nor lost.
        """
        members = root.node_members(root.read_root(self.path))
        last_seq = foreign_record(members, self._journal)
        if last_seq >= 0:
            set_columns_aside(self.path, members, last_seq, self.files)

    def _held_lock(self) -> StoreLock:
        if self._lock is None:
            raise ValueError(f"{self.path} is not open for writing")
        if self._failed:
            raise StoreError(
                f"an earlier write to {self.path} failed; open it again to go on"
            )
        self._failed = True  # whoever lost the store does not seal it at the end
        self._lock.confirm()
        self._failed = False
        return self._lock

    def _decode_entry(self, entry: RawEntry) -> StoredRecord:
        try:
            record = self._codec.decode(entry.record)
        except StoreError as error:
            raise type(error)(f"record {entry.seq} of {self.path}: {error}") from error
        return StoredRecord(entry.seq, entry.time, record)
