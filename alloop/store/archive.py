"""The store of one campaign: its journal, its models, and what it says of itself.

One writer, any number of readers beside it at any time.
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
from alloop.store.codec import Codec
from alloop.store.creation import build_store
from alloop.store.files import FileSystem, explain_errors
from alloop.store.fold_file import read_fold, write_fold
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.links import refuse_link, refuse_links
from alloop.store.lock import LOCK as LOCK
from alloop.store.lock import StoreLock
from alloop.store.models import model_ids, read_model, write_model
from alloop.store.set_aside import foreign, set_aside

Mode = Literal["r", "w"]
_FEW = 64  # loose records that a clean stop leaves alone
_NEAR = 16  # records that are read over rather than skipped


class StoredRecord(NamedTuple):
    """A record with its number and the time (seconds since 1970) it was written."""

    seq: int
    time: float
    record: Any


class Archive:
    """A store, opened by `create` or `open`; a context manager.

    attrs: what was given to `create`, and the format and version of alloop. files: the
    file system calls it makes.
    """

    def __init__(self, path: Path, codec: Codec, mode: Mode, files: FileSystem) -> None:
        self.path = path
        self.mode = mode
        self._codec = codec
        self.files = files
        self._failed = False
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
                    with contextlib.suppress(OSError):  # it is there in case
                        root.keep_copy(path, files)
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
        """Make a store and open it for writing; on failure nothing is left behind.

        Raises
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
        """Open a store; "w" takes the lock, "r" needs no right to write.

        Raises
        ------
        StoreError
            It is not a store, of a newer format, or holds links.
        LockedError
            Another driver is running on it.
        DamagedError
            Its attributes were altered, or a record is missing ("w" only; a reader
            meets it on its way).
        """
        return cls(Path(path), codec, mode, files or FileSystem())

    @property
    def signature(self) -> bytes:
        """What this writer wrote into the lock, nobody else's; b"" for a reader."""
        return b"" if self._lock is None else self._lock.signature

    def append(self, record: object) -> int:
        """Commit a record and return its number; on return it survives a power loss."""
        lock = self._held_lock()
        seq, encoded = self._next, self._codec.encode(record)
        self._failed = True
        with explain_errors(self.path):
            self._journal.append(seq, encoded, time.time())
            lock.confirm()  # its name was free, perhaps only because another sealed it
        self._failed = False
        self._next = seq + 1
        if self._next % packs.RECORDS == 0:
            self.seal()
        return seq

    def seal(self, least: int = 1) -> None:
        """Put loose records into packs, unless there are fewer than `least`.

        It happens by itself every `packs.RECORDS` records and at a clean stop. What the
        file system refuses is left for another time: the records are safe as they are.
        """
        self._held_lock()
        with contextlib.suppress(OSError):
            self._journal.seal(least)

    def records(self, start: int = 0) -> Iterator[StoredRecord]:
        """All records from `start` on, those that a live writer adds meanwhile too."""
        with explain_errors(self.path):
            for entry in self._journal.iterate(start):
                yield self._decode_entry(entry)

    def select(self, numbers: Iterable[int]) -> Iterator[StoredRecord]:
        """The records of these numbers, which rise; those in between are not decoded,
        and where there are many of them not read."""
        with explain_errors(self.path):
            for entry in self._selected(numbers):
                yield self._decode_entry(entry)

    def digest(self, seq: int) -> str | None:
        """The checksum of a record, which names its content; None where it is not
        there or damaged."""
        with contextlib.suppress(StoreError, OSError):
            return self._journal.read(seq).digest.hex() if seq >= 0 else None
        return None

    def last(self) -> int:
        """The number of the last record, -1 where there is none."""
        with explain_errors(self.path):
            return self._journal.last()

    def put_model(self, model_id: str, blob: bytes) -> None:
        """Store a model durably; one that is there already is kept as it is."""
        self._held_lock()
        with explain_errors(self.path):
            node = write_model(self.path, model_id, blob, self.files)
            shown = root.node_members(root.read_root(self.path))
            name = f"{root.MODELS}/{model_id}"
            if name not in shown:
                root.publish_members(self.path, {**shown, name: node}, self.files)

    def model(self, model_id: str) -> bytes:
        """The blob of a model; StoreError where there is none."""
        return read_model(self.path, model_id)

    def model_ids(self) -> tuple[str, ...]:
        """The ids of all models, sorted."""
        with explain_errors(self.path):
            return model_ids(self.path)

    def put_fold(self, name: str, version: str, seq: int, blob: bytes) -> None:
        """Keep what somebody made of the records up to `seq`, in the place of older.

        name: letters and digits; version: of the code that made it.
        """
        self._held_lock()
        with explain_errors(self.path):
            said = (version, seq, self._journal.read(seq).digest.hex())
            write_fold(self.path, name, said, blob, self.files)

    def fold(self, name: str, version: str) -> tuple[int, bytes] | None:
        """The last record that a kept fold holds, and its bytes.

        None where there is none, or it is damaged, of another version, or of a journal
        that went on differently: then begin at the first record.
        """
        return read_fold(self.path, name, version, self._journal)

    def close(self) -> None:
        """Seal what is worth it and give the lock back."""
        if self._lock is not None and not self._failed:
            self.seal(_FEW)
        self.release()

    def release(self) -> None:
        """Give the lock back."""
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
        """Columns of another history must not be continued, nor be lost."""
        shown = root.node_members(root.read_root(self.path))
        mark = foreign(shown, self._journal)
        if mark >= 0:
            set_aside(self.path, shown, mark, self.files)

    def _held_lock(self) -> StoreLock:
        if self._lock is None:
            raise ValueError(f"{self.path} is not open for writing")
        if self._failed:
            raise StoreError(
                f"an earlier write to {self.path} failed; open it again to go on"
            )
        return self._lock

    def _decode_entry(self, entry: RawEntry) -> StoredRecord:
        try:
            record = self._codec.decode(entry.record)
        except StoreError as error:
            raise type(error)(f"record {entry.seq} of {self.path}: {error}") from error
        return StoredRecord(entry.seq, entry.time, record)
