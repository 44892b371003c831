"""The newest records, one behind the other in one growing file.

    size (8, little-endian) | number (8) | check (16) | record | size | number | ...

`journal/00000012-` holds record 12 and those that follow it. A record is appended by
one write and one sync, which costs a fraction of what a file of its own does. The first
one comes with the file and is whole. The last one may be torn by a death, and then it
was never acknowledged: the file ends within it, or zeros are all that is left. Whatever
else does not match is damage and is told. `check` guards size and number, so that a
damaged size is not taken for a torn record, and what lies behind damage is found.
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
    """Where the records of a tail lie: (begin, end) of each, and where the last ends.

    Nothing is left of a record at (0, 0). spoilt: a size did not match its check.
    """

    cuts: tuple[tuple[int, int], ...]
    end: int
    spoilt: bool


def frame_record(seq: int, record: bytes) -> bytes:
    """The bytes that record `seq` adds to a tail."""
    head = _HEAD.pack(len(record), seq)
    return head + _header_checksum(head) + record


def tail_layout(data: bytes, first: int) -> TailLayout:
    """Where the records of the tail that begins with record `first` lie."""
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
    """Whether no record, or only the first part of one, begins there."""
    rest = len(data) - at - _FRAME
    if rest < 0 or not any(memoryview(data)[at:]):
        return True
    told = _frame_header(data, at)
    return told is not None and told[0] > rest


def _frame_header(data: bytes, at: int) -> tuple[int, int] | None:
    """Size and number of the record whose frame begins there, None if damaged."""
    head = data[at : at + _HEAD.size]
    if data[at + _HEAD.size : at + _FRAME] != _header_checksum(head):
        return None
    size, seq = _HEAD.unpack(head)
    return size, seq


def _next_frame(data: bytes, at: int) -> int:
    """Where the next frame that is whole begins, or the end."""
    found = data.find(MAGIC, at)
    while found >= 0:
        if found - _FRAME >= at and _frame_header(data, found - _FRAME):
            return found - _FRAME
        found = data.find(MAGIC, found + 1)
    return len(data)


def _header_checksum(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()[:_CHECK]
