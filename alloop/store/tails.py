"""Tails: growing files of the newest records, one after the other.

    size (8, little-endian) | number (8) | check (16) | record | size | number | ...

`journal/00000012-` holds record 12 and those that follow it. A record is appended by
one write and one sync, much cheaper than a file of its own. The first record is written
with the file and is whole. The last one may be torn if the writer died, and then it was
never acknowledged: the file ends within it, or only zeros are left. Any other mismatch
is damage and is reported. `check` guards size and number, so that a damaged size is not
taken for a torn record, and the records after the damage are found.
"""

import hashlib
import struct
from dataclasses import dataclass

from alloop.store.record import MAGIC

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
        begin, told = end + _FRAME, _frame_header(data, end)
        if told:
            size, seq = told
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
    told = _frame_header(data, at)
    return told is not None and told[0] > rest


def _frame_header(data: bytes, at: int) -> tuple[int, int] | None:
    """Return size and number of the record whose frame begins here, None if damaged."""
    head = data[at : at + _HEAD.size]
    if data[at + _HEAD.size : at + _FRAME] != _header_checksum(head):
        return None
    size, seq = _HEAD.unpack(head)
    return size, seq


def _next_frame(data: bytes, at: int) -> int:
    """Return the begin of the next undamaged frame, or the end of the data."""
    found = data.find(MAGIC, at)
    while found >= 0:
        if found - _FRAME >= at and _frame_header(data, found - _FRAME):
            return found - _FRAME
        found = data.find(MAGIC, found + 1)
    return len(data)


def _header_checksum(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()[:_CHECK]
