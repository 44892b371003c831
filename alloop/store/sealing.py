"""Sealing of loose records into packs, and removal of what an interrupted sealing left.

A pack is created as a record is: exclusively, complete, on the disk. Only then are the
files removed whose records it holds. If the writer dies in between, some records are
stored twice, and the next writer removes the extra files. So committed records are
never half there, and a reader finds each in at least one place.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from alloop.store import packs
from alloop.store.files import FileSystem, create_file
from alloop.store.packs import (
    DIGITS,
    JournalListing,
    Pack,
    RecordSpan,
    join_records,
    list_journal,
    read_pack,
)
from alloop.store.record import is_whole


def seal_records(
    folder: Path, staging: Path, files: FileSystem, least: int = 1
) -> None:
    """Seal the loose records, unless there are fewer than `least`.

    If the last pack is not full, it is merged with them into a new one, so that many
    short runs leave no more packs than a long one. A damaged record, and those after
    it, stay as they are.
    """
    found = list_journal(folder)
    begin = found.packs[-1].last + 1 if found.packs else 0
    if found.last + 1 - begin < least:
        return
    partial = _partial_pack(folder, found)
    records = (
        [partial.record_bytes(seq) for seq in _span_numbers(partial.span)]
        if partial
        else []
    )
    first = begin - len(records)
    for group in _pack_groups([*records], _whole_records(folder, found, begin)):
        span = RecordSpan(first, first + len(group) - 1)
        create_file(files, folder / span.name, join_records(group), staging)
        for name in _replaced_files(found, span, partial):
            files.remove(folder / name)
        first = span.last + 1
    _clear_tails(folder, files)


def _partial_pack(folder: Path, found: JournalListing) -> Pack | None:
    """Return the last pack if it is not full and not damaged."""
    if not found.packs or len(found.packs[-1]) >= packs.RECORDS:
        return None
    pack = read_pack(folder, found.packs[-1])
    small = len(pack.data) < packs.BYTES
    return pack if small and _is_sound(pack, pack.span) else None


def _whole_records(folder: Path, found: JournalListing, begin: int) -> Iterator[bytes]:
    """Yield records from `begin` on, up to the first that is damaged."""
    return takewhile(is_whole, _loose_records(folder, found, begin))


def _loose_records(folder: Path, found: JournalListing, seq: int) -> Iterator[bytes]:
    while seq <= found.last:
        tail = found.span_of(seq)
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
    found: JournalListing, span: RecordSpan, partial: Pack | None
) -> Iterator[str]:
    """Yield the files whose records a new pack holds, without tails."""
    if partial is not None and partial.span.first in span:
        yield partial.span.name
    yield from (f"{seq:0{DIGITS}d}" for seq in sorted(found.loose) if seq in span)


def remove_packed_files(folder: Path, files: FileSystem) -> None:
    """Remove the files whose records are in a pack and undamaged there.

    A copy that differs from the pack's is removed too: its writer was refused.
    """
    _clear_tails(folder, files)
    found = list_journal(folder)
    for span in found.packs:
        inner = [each for each in found.inner if each.first in span]
        loose = sorted(seq for seq in found.loose if seq in span)
        if inner or loose:
            pack = read_pack(folder, span)
            names = [each.name for each in inner if _is_sound(pack, each)]
            names += [
                f"{seq:0{DIGITS}d}" for seq in loose if is_whole(pack.record_bytes(seq))
            ]
            for name in names:
                files.remove(folder / name)


def _clear_tails(folder: Path, files: FileSystem) -> None:
    """Remove the tails whose records are all in packs."""
    found = list_journal(folder)
    for tail in found.tails:
        if _is_packed(folder, found, tail):
            files.remove(folder / tail.name)


def _is_packed(folder: Path, found: JournalListing, tail: RecordSpan) -> bool:
    """Return True if all records of a tail are in packs and undamaged there."""
    count = 0
    for span in found.packs:
        both = range(max(span.first, tail.first), min(span.last, tail.last) + 1)
        pack = read_pack(folder, span) if both else None
        count += sum(is_whole(pack.record_bytes(seq)) for seq in both) if pack else 0
    return count == len(tail)


def _is_sound(pack: Pack, span: RecordSpan) -> bool:
    return all(is_whole(pack.record_bytes(seq)) for seq in _span_numbers(span))


def _span_numbers(span: RecordSpan) -> range:
    return range(span.first, span.last + 1)
