"""Putting loose records away into packs, and tidying up after who died doing so.

A pack is created as a record is: exclusively, complete, on the disk. Only then do the
files go whose records it holds; a death in between leaves records that lie twice, and
the next writer removes them. So nothing that was committed is ever only half there, and
a reader finds each record in one place at least.
"""

from collections.abc import Iterator
from pathlib import Path

from alloop.store import packs
from alloop.store.files import Files, create
from alloop.store.packs import DIGITS, Listing, Pack, Span, joined, listing, read
from alloop.store.record import whole


def seal(folder: Path, staging: Path, files: Files, least: int = 1) -> None:
    """Seal the loose records, unless there are fewer than `least`.

    A last pack that is not full goes into a new one with them, so that many short runs
    leave no more packs than a long one. A damaged record, and what follows it, stays as
    it is.
    """
    found = listing(folder)
    begin = found.packs[-1].last + 1 if found.packs else 0
    if found.last + 1 - begin < least:
        return
    partial = _partial(folder, found)
    records = [partial.raw(seq) for seq in _numbers(partial.span)] if partial else []
    first = begin - len(records)
    for group in _groups([*records], _loose(folder, begin, found.last)):
        span = Span(first, first + len(group) - 1)
        create(files, folder / span.name, joined(group), staging)
        _remove(folder, files, span, partial)
        first = span.last + 1


def _partial(folder: Path, found: Listing) -> Pack | None:
    """The last pack, if it is not full and whole."""
    if not found.packs or len(found.packs[-1]) >= packs.RECORDS:
        return None
    pack = read(folder, found.packs[-1])
    small = len(pack.data) < packs.BYTES
    return pack if small and _sound(pack, pack.span) else None


def _loose(folder: Path, begin: int, last: int) -> Iterator[bytes]:
    for seq in range(begin, last + 1):
        data = (folder / f"{seq:0{DIGITS}d}").read_bytes()
        if not whole(data):
            return
        yield data


def _groups(group: list[bytes], records: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The records cut into packs; the first of them begins with `group`."""
    fresh, size = False, sum(map(len, group))
    for data in records:
        group.append(data)
        fresh, size = True, size + len(data)
        if len(group) >= packs.RECORDS or size >= packs.BYTES:
            yield group
            group, fresh, size = [], False, 0
    if fresh:
        yield group


def _remove(folder: Path, files: Files, span: Span, partial: Pack | None) -> None:
    if partial is not None and partial.span.first in span:
        files.remove(folder / partial.span.name)
    begin = span.first if partial is None else max(span.first, partial.span.last + 1)
    for seq in range(begin, span.last + 1):
        files.remove(folder / f"{seq:0{DIGITS}d}")


def mend(folder: Path, files: Files) -> None:
    """Remove the files whose records lie whole in a pack.

    A copy that differs from the pack's is no exception: who made it was refused.
    """
    found = listing(folder)
    for span in found.packs:
        inner = [each for each in found.inner if each.first in span]
        loose = sorted(seq for seq in found.loose if seq in span)
        if inner or loose:
            pack = read(folder, span)
            names = [each.name for each in inner if _sound(pack, each)]
            names += [f"{seq:0{DIGITS}d}" for seq in loose if whole(pack.raw(seq))]
            for name in names:
                files.remove(folder / name)


def _sound(pack: Pack, span: Span) -> bool:
    return all(whole(pack.raw(seq)) for seq in _numbers(span))


def _numbers(span: Span) -> range:
    return range(span.first, span.last + 1)
