"""What a driver must know of its journal: the fold, and its bytes to keep beside it.

The bytes are JSON and arrays. Small parts go through the codec of the journal; what
grows with the campaign (entries, frames, labels) is laid out in columns, so that a
hundred thousand labels are read in seconds. Nothing of it is the truth: a fold that
other code made counts as absent (`version`), and the journal is replayed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core import batch, cost, curve, doubts, frame, records, splits
from alloop.core.batch import Batch, pack
from alloop.core.errors import InputError
from alloop.core.records import Label, Unlabelled
from alloop.loop import chronicle, known, learning, ledger, sheets, state
from alloop.loop import codec as classes
from alloop.loop import events as e
from alloop.loop.chronicle import Chronicle, Lesson, Question
from alloop.loop.codec import CLASSES, CODEC, configured, first_configuration, opened
from alloop.loop.known import Known
from alloop.loop.ledger import Ledger
from alloop.loop.state import Entry, Found, Insight, LoopState
from alloop.store import codec, record
from alloop.store.archive import Archive
from alloop.store.codec import Codec, Encoded
from alloop.store.record import Array

NAME = "driver"
_GROWING = ("blocks", "recent")
_REST = (
    *("lessons", "rechecked", "questions", "retries"),
    *("explorers", "examinations", "round", "generation"),
)
_MADE_OF = (
    *(batch, cost, curve, doubts, frame, records, splits),
    *(chronicle, classes, e, known, learning, ledger, sheets, state, codec, record),
)


@cache
def version() -> str:
    """Names the code that folds: the hash of its sources, this file among them."""
    digest = hashlib.sha256()
    for path in (__file__, *(module.__file__ for module in _MADE_OF)):
        digest.update(Path(str(path)).read_bytes())
    return digest.hexdigest()


def keep(archive: Archive, known: Known) -> None:
    """Keep the fold in the store, which is open for writing."""
    archive.put_fold(NAME, version(), known.seq, dump(known))


def kept(archive: Archive) -> Known:
    """The fold that the store keeps; one of no record where there is none."""
    found = archive.fold(NAME, version())
    return Known() if found is None else load(*found)


def beginning(path: Path) -> tuple[str, e.Opened]:
    """The configuration in force (YAML) and the first event of a campaign that began.

    Raises InputError where it has not.
    """
    with Archive.open(path, CODEC) as archive:
        first = opened(archive)
        if first is None:
            raise InputError(f"{path} holds no campaign yet; run it first")
        found = archive.fold(NAME, version())
        seq, text = (
            (-1, "") if found is None else (found[0], _unpacked(found[1]).config)
        )
        for _, _, turn in archive.records(seq + 1):
            text = configured(turn.event) or text
        return text or first_configuration(archive.attrs, path), first


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """A mapping in its order, whatever its keys are."""

    items: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Set:
    """A frozenset."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A fold as the codec takes it; texts are JSON as bytes."""

    config: str
    state: _Pairs
    entries: Array
    blocks: tuple[int, ...]
    frames: Batch
    labels: Array
    forces: Array
    failures: tuple[Unlabelled, ...]
    told: Array
    others: tuple[Label | Unlabelled, ...]
    deeds: Array
    rest: _Pairs


_CODEC = Codec((*CLASSES, Found, Insight, Question, Lesson, _Pairs, _Set, _Kept))


def dump(known: Known) -> bytes:
    """The fold as bytes."""
    now, book, story = known.state, known.ledger, known.chronicle
    told, others = sheets.labels(story.told, book)
    small = {f.name: getattr(now, f.name) for f in fields(now)}
    good = [x for x in book.labels.values() if isinstance(x, Label)]
    encoded = _CODEC.encode(
        _Kept(
            config=known.config,
            state=_out({k: v for k, v in small.items() if k not in _GROWING}),
            entries=_entries(list(now.entries())),
            blocks=tuple(map(len, (*now.blocks, now.recent))),
            frames=pack(list(book.frames.values())),
            labels=_labels(book, good),
            forces=np.concatenate([np.zeros((0, 3)), *(x.forces for x in good)]),
            failures=tuple(
                x for x in book.labels.values() if isinstance(x, Unlabelled)
            ),
            told=told,
            others=others,
            deeds=sheets.deeds(story.deeds),
            rest=_out({name: getattr(story, name) for name in _REST}),
        )
    )
    header = {"versions": encoded.versions, "frames": encoded.frames}
    return record.pack({**header, "record": encoded.tree}, encoded.arrays)


def load(seq: int, data: bytes) -> Known:
    """The fold from its bytes."""
    found = _unpacked(data)
    entries = iter(_entries_of(found.entries))
    *blocks, recent = (_first(entries, count) for count in found.blocks)
    small = LoopState(**_in(found.state))
    now = replace(small, blocks=tuple(blocks), recent=recent)
    book = _ledger(found)
    return Known(seq, found.config, now, book, _chronicle(found, book))


def _unpacked(data: bytes) -> _Kept:
    header, arrays = record.unpack(data, NAME)
    tree, frames, versions = (header[key] for key in ("record", "frames", "versions"))
    kept: _Kept = _CODEC.decode(Encoded(tree, tuple(arrays), tuple(frames), versions))
    return kept


def _first(entries: Iterator[Entry], count: int) -> tuple[Entry, ...]:
    return tuple(next(entries) for _ in range(count))


def _out(value: Any) -> Any:
    match value:
        case Mapping():
            return _Pairs(tuple((key, _out(each)) for key, each in value.items()))
        case frozenset() | set():
            return _Set(tuple(sorted(value)))
        case _:
            return value


def _in(value: Any) -> Any:
    match value:
        case _Pairs(items=items):
            return {key: _in(each) for key, each in items}
        case _Set(items=items):
            return frozenset(items)
        case _:
            return value


def _entries(entries: Sequence[Entry]) -> Array:
    names = [f.name for f in fields(Entry)]
    columns = {name: [getattr(x, name) for x in entries] for name in names}
    columns["doubts"] = [doubts.written(found) for found in columns["doubts"]]
    return sheets.text(columns)


def _entries_of(sheet: Array) -> Iterator[Entry]:
    columns = sheets.tree(sheet)
    known = {text: doubts.read({doubts.KEY: text}) for text in {*columns["doubts"]}}
    columns["doubts"] = [known[text] for text in columns["doubts"]]
    for values in zip(*columns.values(), strict=True):
        yield Entry(*values)


def _labels(book: Ledger, good: Iterable[Label]) -> Array:
    """Keys of all labels and failures in their order, and the columns of the good."""
    columns = ("energy", "cpu_seconds", "details")
    values = {name: [getattr(x, name) for x in good] for name in columns}
    return sheets.text(
        {
            "keys": [list(key) for key in book.labels],
            "good": [isinstance(x, Label) for x in book.labels.values()],
            "made": [key in book.made for key in book.labels],
            "sizes": [len(x.forces) for x in good],
            "stress": [None if x.stress is None else x.stress.tolist() for x in good],
            **{name: [sheets.plain(x) for x in each] for name, each in values.items()},
        }
    )


def _ledger(found: _Kept) -> Ledger:
    told = sheets.tree(found.labels)
    keys = [(level, frame) for level, frame in told["keys"]]
    ends = np.cumsum([0, *told["sizes"]]).tolist()
    forces = (found.forces[a:b] for a, b in pairwise(ends))
    stresses = (None if x is None else np.array(x) for x in told["stress"])
    numbers = (told["energy"], forces, told["cpu_seconds"])
    facts = zip(*numbers, told["details"], stresses, strict=True)
    failures = iter(found.failures)
    labels: dict[tuple[str, str], Label | Unlabelled] = {
        (level, frame): Label(frame, level, *next(facts)) if good else next(failures)
        for (level, frame), good in zip(keys, told["good"], strict=True)
    }
    made = {key for key, own in zip(keys, told["made"], strict=True) if own}
    return Ledger({x.id: x for x in found.frames.frames()}, labels, made)


def _chronicle(found: _Kept, book: Ledger) -> Chronicle:
    rest = _in(found.rest)
    return Chronicle(
        told=list(sheets.labels_of(found.told, found.others, book)),
        deeds=list(sheets.deeds_of(found.deeds)),
        lessons=list(rest["lessons"]),
        rechecked=list(rest["rechecked"]),
        questions=rest["questions"],
        retries=set(rest["retries"]),
        explorers=rest["explorers"],
        examinations=rest["examinations"],
        round=rest["round"],
        generation=rest["generation"],
    )
