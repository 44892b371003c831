"""The journal: immutable, checksummed records, each committed by a synced append.

`journal/00000012-` holds record 12 and those that follow it, see `alloop.store.packs`.
A number can be taken only once: a second writer that got past the lock finds that the
file has grown or gone, and fails at its first append. Stores of format 2 had a file for
each new record, `journal/00000012`; these are read and sealed too. `journal/packs`
lists the packs for readers that cannot list a folder (`alloop.store.remote`). The
folder is at the same time a Zarr array of shape (0,), whose members nothing lists, so
that the store stays a valid Zarr hierarchy.

Old records are sealed into packs. A pack is created as a record is: exclusively,
complete, on the disk. Only then are the files removed whose records it holds. If the
writer dies in between, some records are stored twice, and the next writer removes the
extra files: committed records are never half there, and a reader finds each in at least
one place.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from alloop.core.errors import DamagedError, LockedError, StoreError
from alloop.store import packs
from alloop.store.codec import EncodedRecord
from alloop.store.files import FileSystem, create_file, replace_file, sweep_staging
from alloop.store.packs import (
    DIGITS,
    JournalListing,
    Pack,
    RecordSpan,
    frame_record,
    join_records,
    list_journal,
    read_digests,
    read_pack,
    tail_layout,
)
from alloop.store.record import DIGEST, is_whole, pack_record, unpack_record

FOLDER = "journal"
STAGING = "staging"
PACKS = "packs"
# Seconds since 1970 that are dates, whatever the clock and the time zone.
_EARLIEST, _LATEST = -2e9, 2.5e11
NODE: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [0],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
    "attributes": {"about": "alloop's journal: files of records, not chunks of Zarr"},
    "storage_transformers": [],
}


@dataclass(frozen=True, slots=True, eq=False)
class RawEntry:
    """Record `seq` of the journal, written at `time` (seconds since 1970).

    digest: the checksum of its bytes, which identifies its content.
    """

    seq: int
    time: float
    record: EncodedRecord
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Tail:
    """The file to append to: its path, its size, and the number of the next record."""

    path: Path
    size: int
    next: int


class Journal:
    """The records beneath one folder, numbered from 0 without a gap."""

    def __init__(
        self, folder: Path, *, writable: bool = False, files: FileSystem | None = None
    ) -> None:
        self._folder = folder
        self._staging = folder / STAGING
        self._files = files or FileSystem()
        self._writable = writable
        self._tail: _Tail | None = None
        if writable:
            sweep_staging(self._staging)
            remove_packed_files(folder, self._files)
            with contextlib.suppress(OSError):  # no reader on this machine needs it
                _list_packs(folder, self._staging, self._files)
            self._tail = _resume_tail(folder, self._files)

    def append(self, seq: int, record: EncodedRecord, time: float) -> None:
        """Commit record `seq`; on return it survives a power loss.

        Raises:
        ------
        LockedError
            Another writer has committed this number.
        OSError
            A file system call failed; the record was not committed, or it was and will
            be there at the next opening.
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
        data = frame_record(seq, pack_record(header, record.arrays))
        tail = self._tail
        try:
            if tail is None or tail.next != seq or tail.size >= packs.BYTES:
                tail = _Tail(self._folder / RecordSpan(seq, seq, True).name, 0, seq)
                create_file(self._files, tail.path, data, self._staging)
            else:
                self._files.append(tail.path, data, tail.size)
        except (FileExistsError, FileNotFoundError) as error:
            raise LockedError(
                f"record {seq} of {self._folder.parent} was written by another driver; "
                "only one may run, so stop one of the two"
            ) from error
        self._tail = _Tail(tail.path, tail.size + len(data), seq + 1)

    def seal(self, minimum: int = 1) -> None:
        """Put loose records into packs, unless there are fewer than `minimum`.

        Raises OSError if a file system call failed; nothing is lost.
        """
        try:
            seal_records(self._folder, self._staging, self._files, minimum)
        finally:
            if self._tail is not None and not self._tail.path.exists():
                self._tail = None

    def read(self, seq: int) -> RawEntry:
        """Return record `seq`.

        Raises:
        ------
        DamagedError
            It is missing, or its bytes are not those that were written.
        """
        for entry in self.iterate(seq):
            return entry
        raise self._absent_error(seq)

    def fingerprint(self, last: int) -> str:
        """Return a checksum of the checksums of all records up to `last`.

        Raises OSError if one of them is missing.
        """
        digest, listing, seq = hashlib.sha256(), self.listing(), 0
        while seq <= last:
            span = listing.span_of(seq)
            if span is None:
                digest.update(self._record_path(seq).read_bytes()[-DIGEST:])
                seq += 1
                continue
            digests = islice(
                read_digests(self._folder, span),
                seq - span.first,
                last + 1 - span.first,
            )
            digest.update(b"".join(digests))
            seq = span.last + 1
        return digest.hexdigest()

    def iterate(self, start: int = 0) -> Iterator[RawEntry]:
        """Yield the records from `start` on.

        A live writer may append to the journal meanwhile, and seal its records.
        """
        seen: JournalListing | None = None
        while True:
            listing, begin = self.listing(), start
            for entry in self._iterate_from(start, listing):
                yield entry
                start = entry.seq + 1
            if start == begin and start > listing.last:
                return
            # A listed file that cannot be opened was sealed meanwhile: list again.
            if start == begin and (start in listing.missing() or listing == seen):
                raise self._absent_error(start)
            seen = listing

    def survey(self) -> Iterator[tuple[int, "RawEntry | StoreError"]]:
        """Yield every number up to the last, with its record or the error there."""
        listing, seq = self.listing(), 0
        gaps = set(listing.missing())
        while seq <= listing.last:
            try:
                for entry in self.iterate(seq):
                    yield entry.seq, entry
                    seq = entry.seq + 1
            except StoreError as error:
                yield seq, DamagedError("it is missing") if seq in gaps else error
                seq += 1

    def last(self) -> int:
        """Return the number of the last record, -1 if there is none."""
        return self.listing().last

    def missing(self) -> list[int]:
        """Return the numbers below the last that have no record."""
        return self.listing().missing()

    def listing(self) -> JournalListing:
        """Return a listing of the files that hold the records."""
        return list_journal(self._folder)

    def _iterate_from(self, seq: int, listing: JournalListing) -> Iterator[RawEntry]:
        """Yield records from `seq` on, until one is not where the listing has it."""
        with contextlib.suppress(FileNotFoundError):
            while True:
                span = listing.span_of(seq)
                if span is None:
                    yield self._loose_entry(seq)
                    seq += 1
                else:
                    yield from self._sealed_entries(
                        seq, read_pack(self._folder, span), listing
                    )
                    seq = span.last + 1

    def _loose_entry(self, seq: int) -> RawEntry:
        path = self._record_path(seq)
        return _decode_entry(seq, path.read_bytes(), str(path))

    def _sealed_entries(
        self, start: int, pack: Pack, listing: JournalListing
    ) -> Iterator[RawEntry]:
        name = str(self._folder / pack.span.name)
        for seq in range(start, pack.span.last + 1):
            try:
                yield _decode_entry(
                    seq, pack.record_bytes(seq), f"record {seq} in {name}"
                )
            except DamagedError:
                spare = self._spare_entry(seq, listing)
                if spare is None:
                    raise
                yield spare

    def _spare_entry(self, seq: int, listing: JournalListing) -> RawEntry | None:
        """Return the record from a file that the pack has not replaced yet, if any."""
        for span in (*listing.inner, *listing.tails):
            if seq in span:
                data = read_pack(self._folder, span).record_bytes(seq)
                return _decode_entry(seq, data, f"record {seq} in {span.name}")
        return self._loose_entry(seq) if seq in listing.loose else None

    def _record_path(self, seq: int) -> Path:
        return self._folder / f"{seq:0{DIGITS}d}"

    def _absent_error(self, seq: int) -> DamagedError:
        return DamagedError(f"{self._record_path(seq)} is missing")


def _resume_tail(folder: Path, files: FileSystem) -> _Tail | None:
    """Return the tail to append to, without a torn record at its end.

    None if it is damaged: records appended to it might not be found again.
    """
    listing = list_journal(folder)
    if not listing.tails or listing.tails[-1].last != listing.last:
        return None
    last = listing.tails[-1]
    data = (folder / last.name).read_bytes()
    there = tail_layout(data, last.first)
    if there.spoilt:
        return None
    if there.end < len(data):
        files.cut(folder / last.name, there.end)
    return _Tail(folder / last.name, there.end, last.last + 1)


_HEADER: dict[str, Callable[[Any], bool]] = {
    "time": lambda x: type(x) in (int, float) and _EARLIEST < x < _LATEST,
    "frames": lambda x: type(x) is list and all(type(each) is str for each in x),
    "versions": lambda x: (
        type(x) is dict and all(type(each) is int for each in x.values())
    ),
}


def _decode_entry(seq: int, data: bytes, name: str) -> RawEntry:
    header, arrays = unpack_record(data, name)
    if header.get("seq") != seq:
        raise DamagedError(
            f"expected record {seq}, {name} holds record {header.get('seq')}; "
            "run `alloop doctor` on the store"
        )
    wrong = next((x for x, right in _HEADER.items() if not right(header.get(x))), None)
    if wrong or "record" not in header:
        raise DamagedError(
            f"{name} has no {wrong or 'record'} such as alloop writes; restore it from "
            "a copy"
        )
    record = EncodedRecord(
        header["record"], tuple(arrays), tuple(header["frames"]), header["versions"]
    )
    return RawEntry(seq, header["time"], record, data[-DIGEST:])


def seal_records(
    folder: Path, staging: Path, files: FileSystem, minimum: int = 1
) -> None:
    """Seal the loose records, unless there are fewer than `minimum`.

    If the last pack is not full, it is merged with them into a new one, so that many
    short runs leave no more packs than a long one. A damaged record, and those after
    it, stay as they are.
    """
    listing = list_journal(folder)
    begin = listing.packs[-1].last + 1 if listing.packs else 0
    if listing.last + 1 - begin < minimum:
        return
    partial = _partial_pack(folder, listing)
    records = (
        [partial.record_bytes(seq) for seq in _span_numbers(partial.span)]
        if partial
        else []
    )
    first = begin - len(records)
    for group in _pack_groups([*records], _whole_records(folder, listing, begin)):
        span = RecordSpan(first, first + len(group) - 1)
        create_file(files, folder / span.name, join_records(group), staging)
        _list_packs(folder, staging, files)
        for name in _replaced_files(listing, span, partial):
            files.remove(folder / name)
        first = span.last + 1
    _clear_tails(folder, files)


def _list_packs(folder: Path, staging: Path, files: FileSystem) -> None:
    """Bring the list of packs up to date, before the files they replace are removed."""
    names = [span.name for span in list_journal(folder).packs]
    data, path = json.dumps(names).encode(), folder / PACKS
    if data != (path.read_bytes() if path.exists() else b"[]"):
        replace_file(files, path, data, staging)


def _partial_pack(folder: Path, listing: JournalListing) -> Pack | None:
    """Return the last pack if it is not full and not damaged."""
    if not listing.packs or len(listing.packs[-1]) >= packs.RECORDS:
        return None
    pack = read_pack(folder, listing.packs[-1])
    small = len(pack.data) < packs.BYTES
    return pack if small and _is_sound(pack, pack.span) else None


def _whole_records(
    folder: Path, listing: JournalListing, begin: int
) -> Iterator[bytes]:
    """Yield records from `begin` on, up to the first that is damaged."""
    return takewhile(is_whole, _loose_records(folder, listing, begin))


def _loose_records(folder: Path, listing: JournalListing, seq: int) -> Iterator[bytes]:
    while seq <= listing.last:
        tail = listing.span_of(seq)
        if tail is None:
            yield (folder / f"{seq:0{DIGITS}d}").read_bytes()
            seq += 1
        else:
            pack = read_pack(folder, tail)
            yield from map(pack.record_bytes, range(seq, tail.last + 1))
            seq = tail.last + 1


def _pack_groups(group: list[bytes], records: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield the records of each pack; the first pack begins with `group`."""
    fresh, size = False, sum(map(len, group))
    for data in records:
        group.append(data)
        fresh, size = True, size + len(data)
        if len(group) >= packs.RECORDS or size >= packs.BYTES:
            yield group
            group, fresh, size = [], False, 0
    if fresh:
        yield group


def _replaced_files(
    listing: JournalListing, span: RecordSpan, partial: Pack | None
) -> Iterator[str]:
    """Yield the files whose records a new pack holds, without tails."""
    if partial is not None and partial.span.first in span:
        yield partial.span.name
    yield from (f"{seq:0{DIGITS}d}" for seq in sorted(listing.loose) if seq in span)


def remove_packed_files(folder: Path, files: FileSystem) -> None:
    """Remove the files whose records are in a pack and undamaged there.

    A copy that differs from the pack's is removed too: its writer was refused.
    """
    _clear_tails(folder, files)
    listing = list_journal(folder)
    for span in listing.packs:
        inner = [pack_file for pack_file in listing.inner if pack_file.first in span]
        loose = sorted(seq for seq in listing.loose if seq in span)
        if inner or loose:
            pack = read_pack(folder, span)
            names = [
                pack_file.name for pack_file in inner if _is_sound(pack, pack_file)
            ]
            names += [
                f"{seq:0{DIGITS}d}" for seq in loose if is_whole(pack.record_bytes(seq))
            ]
            for name in names:
                files.remove(folder / name)


def _clear_tails(folder: Path, files: FileSystem) -> None:
    """Remove the tails whose records are all in packs."""
    listing = list_journal(folder)
    for tail in listing.tails:
        if _is_packed(folder, listing, tail):
            files.remove(folder / tail.name)


def _is_packed(folder: Path, listing: JournalListing, tail: RecordSpan) -> bool:
    """Return True if all records of a tail are in packs and undamaged there."""
    count = 0
    for span in listing.packs:
        both = range(max(span.first, tail.first), min(span.last, tail.last) + 1)
        pack = read_pack(folder, span) if both else None
        count += sum(is_whole(pack.record_bytes(seq)) for seq in both) if pack else 0
    return count == len(tail)


def _is_sound(pack: Pack, span: RecordSpan) -> bool:
    return all(is_whole(pack.record_bytes(seq)) for seq in _span_numbers(span))


def _span_numbers(span: RecordSpan) -> range:
    return range(span.first, span.last + 1)
