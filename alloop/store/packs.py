"""Packs and tails: files of many records, with their bytes unchanged.

A pack holds sealed records after an index:

    magic (8) | records (8) | offsets (8 each, records + 1) | sha256 | records

`journal/00000000-00001023` holds records 0 to 1023; offsets count from the first
record's first byte, the checksum is of all bytes before it, and numbers are
little-endian. Every record keeps its own checksum, so damage affects only the records
that it hits. A damaged index is computed again, since each record contains its length.

A tail grows, and holds the newest records, one after the other:

    size (8, little-endian) | number (8) | check (16) | record | size | number | ...

`journal/00000012-` holds record 12 and those that follow it. A record is appended by
one write and one sync, much cheaper than a file of its own. The first record is written
with the file and is whole. The last one may be torn if the writer died, and then it was
never acknowledged: the file ends within it, or only zeros are left. Any other mismatch
is damage and is reported. `check` guards size and number, so that a damaged size is not
taken for a torn record, and the records after the damage are found.
"""

import contextlib
import hashlib
import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from alloop.core.errors import DamagedError
from alloop.store.record import MAGIC as RECORD_MAGIC
from alloop.store.record import record_length

RECORDS = 1024  # in a full pack
BYTES = 16 * 2**20  # a pack of this size is full, too
DIGITS = 8
MAGIC = b"alpack01"
_PREFIX = struct.Struct("<8sQ")
_DIGEST = 32


@dataclass(frozen=True, slots=True, order=True)
class RecordSpan:
    """The records in a pack, from its name: `first` to `last`; grows: it is a tail."""

    first: int
    last: int
    grows: bool = False

    @property
    def name(self) -> str:
        """The file name of the pack."""
        last = "" if self.grows else f"{self.last:0{DIGITS}d}"
        return f"{self.first:0{DIGITS}d}-{last}"

    def __contains__(self, seq: int) -> bool:
        return self.first <= seq <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class JournalListing:
    """A listing of a journal's folder.

    packs: in order, none within another; loose: records with a file of their own,
    including those that are in a pack too; inner: packs that lie within another, left
    by a writer that died before it removed them; tails: in order, none within another,
    including those whose records are in a pack too.
    """

    packs: tuple[RecordSpan, ...]
    loose: frozenset[int]
    inner: tuple[RecordSpan, ...] = ()
    tails: tuple[RecordSpan, ...] = ()

    @property
    def last(self) -> int:
        """The number of the last record, -1 if there is none."""
        ends = [span.last for span in (*self.packs[-1:], *self.tails[-1:])]
        return max([*ends, *self.loose], default=-1)

    def span_of(self, seq: int) -> RecordSpan | None:
        """Return the pack that holds a record, else the tail; None if neither does."""
        return _holding_span(self.packs, seq) or _holding_span(self.tails, seq)

    def missing(self) -> list[int]:
        """Return the numbers below the last that no file holds."""
        gaps, begin = [], 0
        end = RecordSpan(self.last + 1, self.last + 1)
        for span in (*sorted((*self.packs, *self.tails)), end):
            gaps += [seq for seq in range(begin, span.first) if seq not in self.loose]
            begin = max(begin, span.last + 1)
        return gaps


def _holding_span(spans: Sequence[RecordSpan], seq: int) -> RecordSpan | None:
    place = bisect_right(spans, seq, key=lambda span: span.first) - 1
    return spans[place] if place >= 0 and seq in spans[place] else None


def list_journal(folder: Path) -> JournalListing:
    """List the files in a journal's folder, while a writer may be sealing.

    A pack appears before the files that it replaces are removed, so if no name has
    disappeared since the previous look, the names cover all records.
    """
    names, tails = _visible_names(folder)
    spans = sorted(_name_spans(names), key=lambda span: (span.first, -span.last))
    outer: list[RecordSpan] = []
    inner: list[RecordSpan] = []
    for span in spans:
        within = bool(outer) and span.last <= outer[-1].last
        (inner if within else outer).append(span)
    loose = frozenset(int(name) for name in names if name.isdigit())
    return JournalListing(tuple(outer), loose, tuple(inner), tails)


def _visible_names(folder: Path) -> tuple[set[str], tuple[RecordSpan, ...]]:
    """Return all names, and the tails among them."""
    while True:
        names = _all_names(folder)
        with contextlib.suppress(FileNotFoundError):  # it was sealed meanwhile
            return names, _tail_spans(folder, names)


def _tail_spans(folder: Path, names: set[str]) -> tuple[RecordSpan, ...]:
    parts = (name.partition("-") for name in names if name.endswith("-"))
    firsts = sorted(int(first) for first, _, _ in parts if first.isdigit())
    if not firsts:
        return ()
    # The last one grows: its end is known only from its content.
    cuts = tail_layout(
        (folder / RecordSpan(firsts[-1], 0, True).name).read_bytes(), firsts[-1]
    )
    ends = [*firsts[1:], firsts[-1] + len(cuts.cuts)]
    return tuple(
        RecordSpan(first, end - 1, True)
        for first, end in zip(firsts, ends, strict=True)
    )


def _all_names(folder: Path) -> set[str]:
    before = _file_names(folder)
    while not before <= (names := _file_names(folder)):
        before = names
    return names


def _file_names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _name_spans(names: Iterable[str]) -> Iterator[RecordSpan]:
    for name in names:
        first, dash, last = name.partition("-")
        if dash and first.isdigit() and last.isdigit():
            yield RecordSpan(int(first), int(last))


def join_records(records: Sequence[bytes]) -> bytes:
    """Return the bytes of a pack of these records."""
    offsets = np.cumsum([0, *map(len, records)], dtype="<i8")
    head = _PREFIX.pack(MAGIC, len(records)) + offsets.tobytes()
    return b"".join([head, hashlib.sha256(head).digest(), *records])


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """A pack in memory, with the begin and end of each record.

    spoilt: the index did not match its checksum and was computed again.
    """

    span: RecordSpan
    data: bytes
    cuts: tuple[tuple[int, int], ...]
    spoilt: bool = False

    def record_bytes(self, seq: int) -> bytes:
        """Return the bytes of a record; empty if the damage left nothing of it."""
        index = seq - self.span.first
        begin, end = self.cuts[index] if index < len(self.cuts) else (0, 0)
        return self.data[begin:end]


def read_pack(folder: Path, span: RecordSpan) -> Pack:
    """Read a pack; raise FileNotFoundError if it was merged into a larger one."""
    data = (folder / span.name).read_bytes()
    if span.grows:
        layout = tail_layout(data, span.first)
        return Pack(span, data, layout.cuts, layout.spoilt)
    start = _PREFIX.size + 8 * (len(span) + 1)
    head, digest = data[:start], data[start : start + _DIGEST]
    if hashlib.sha256(head).digest() == digest:
        offsets = np.frombuffer(head, "<i8", offset=_PREFIX.size) + start + _DIGEST
        return Pack(span, data, tuple(pairwise(offsets.tolist())))
    ends = _walk_records(data, start + _DIGEST, len(span))
    return Pack(span, data, tuple(pairwise(ends)), True)


def read_digests(folder: Path, span: RecordSpan) -> Iterator[bytes]:
    """Yield the checksums of a pack's records, of which little else is read.

    A checksum stands at the end of its record; that it fits is not verified.
    """
    start = _PREFIX.size + 8 * (len(span) + 1)
    with (folder / span.name).open("rb") as file:
        head, digest = file.read(start), file.read(_DIGEST)
        if span.grows or hashlib.sha256(head).digest() != digest:
            pack = read_pack(folder, span)
            yield from (pack.data[end - _DIGEST : end] for _, end in pack.cuts)
            return
        ends = np.frombuffer(head, "<i8", offset=_PREFIX.size)[1:] + start
        for end in ends.tolist():  # of the record: `start + _DIGEST + offset`
            yield os.pread(file.fileno(), _DIGEST, end)


def _walk_records(data: bytes, start: int, count: int) -> Iterator[int]:
    """Yield the offsets at which records begin, from the headers that are readable."""
    yield start
    for _ in range(count):
        try:
            start += record_length(data, start)
        except DamagedError:
            return
        yield start


_HEAD = struct.Struct("<QQ")
_CHECK = 16
_FRAME = _HEAD.size + _CHECK


@dataclass(frozen=True, slots=True)
class TailLayout:
    """The positions of a tail's records: (begin, end) of each, and the end of the last.

    (0, 0) means that nothing is left of a record. spoilt: a size did not match its
    check.
    """

    cuts: tuple[tuple[int, int], ...]
    end: int
    spoilt: bool


def frame_record(seq: int, record: bytes) -> bytes:
    """Return the bytes that record `seq` adds to a tail."""
    head = _HEAD.pack(len(record), seq)
    return head + _header_checksum(head) + record


def tail_layout(data: bytes, first: int) -> TailLayout:
    """Return the positions of the records in a tail that begins with record `first`."""
    cuts: list[tuple[int, int]] = []
    end, spoilt = 0, False
    while not _is_torn(data, end):
        begin, header = end + _FRAME, _frame_header(data, end)
        if header:
            size, seq = header
            cuts += [(0, 0)] * (seq - first - len(cuts))
            end = begin + size
        else:
            end, spoilt = _next_frame(data, begin), True
        cuts.append((begin, end))
    # The first record was whole when the file got its name.
    return (
        TailLayout(tuple(cuts), end, spoilt) if cuts else TailLayout(((0, 0),), 0, True)
    )


def _is_torn(data: bytes, at: int) -> bool:
    """Return True if no record, or only the first part of one, begins at this byte."""
    rest = len(data) - at - _FRAME
    if rest < 0 or not any(memoryview(data)[at:]):
        return True
    header = _frame_header(data, at)
    return header is not None and header[0] > rest


def _frame_header(data: bytes, at: int) -> tuple[int, int] | None:
    """Return size and number of the record whose frame begins here, None if damaged."""
    head = data[at : at + _HEAD.size]
    if data[at + _HEAD.size : at + _FRAME] != _header_checksum(head):
        return None
    size, seq = _HEAD.unpack(head)
    return size, seq


def _next_frame(data: bytes, at: int) -> int:
    """Return the begin of the next undamaged frame, or the end of the data."""
    position = data.find(RECORD_MAGIC, at)
    while position >= 0:
        if position - _FRAME >= at and _frame_header(data, position - _FRAME):
            return position - _FRAME
        position = data.find(RECORD_MAGIC, position + 1)
    return len(data)


def _header_checksum(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()[:_CHECK]
