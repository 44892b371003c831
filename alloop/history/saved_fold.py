"""Saving and loading of the fold of a journal.

The bytes are JSON and arrays. Small parts go through the codec of the journal; what
grows with the campaign (entries, frames, labels) is laid out in columns, so that a
hundred thousand labels load in seconds. The journal remains the only source: a fold
that other code made (see `fold_version`) counts as absent, and the journal is replayed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core import doubts
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Label, Unlabelled
from alloop.history import json_columns
from alloop.history.journal_codec import (
    CLASSES,
    CODEC,
    UPCASTERS,
    event_config,
    first_configuration,
    opening_event,
)
from alloop.history.journal_fold import JournalFold
from alloop.history.label_index import LabelIndex
from alloop.history.record_index import (
    ExaminationRequest,
    ExplorationRequest,
    OpenLabel,
    RecordIndex,
    TrainingRequest,
)
from alloop.loop import events as e
from alloop.loop.state import (
    FoundCandidates,
    GenerationSummary,
    LabelState,
    LoopState,
    PartErrors,
    label_blocks,
)
from alloop.store import record
from alloop.store.archive import Archive
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.record import Array

NAME = "driver"
_GROWING = ("blocks", "recent")
_REST = (
    *("trainings", "rechecked", "open_labels", "retries"),
    *("explorations", "examinations", "round", "generation"),
)
_MADE_OF = ("core", "history", "loop", "store")  # packages; held by a test


@cache
def fold_version() -> str:
    """Return the hash of the sources that make a fold, this file included."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for name in _MADE_OF:
        for path in sorted((package / name).rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def save_fold(archive: Archive, fold: JournalFold) -> None:
    """Save the fold in the store, which is open for writing."""
    archive.put_fold(NAME, fold_version(), fold.seq, fold_to_bytes(fold))


def load_saved_fold(archive: Archive) -> JournalFold:
    """Return the fold saved in the store, an empty one where there is none."""
    found = archive.fold(NAME, fold_version())
    return JournalFold() if found is None else fold_from_bytes(*found)


def is_fold_forged(archive: Archive) -> bool:
    """Return True if the saved fold, whoever saved it, is not what its journal gives.

    A fold that other code made is not compared. Replays the journal.
    """
    found = archive.fold(NAME, fold_version(), foreign=True)
    if found is None:
        return False
    last, data = found
    fold = JournalFold()
    for _, _, turn in takewhile(lambda stored: stored.seq <= last, archive.records()):
        fold.add_turn(turn)
    return fold_to_bytes(fold) != data


def campaign_beginning(path: Path) -> tuple[str, e.Opened]:
    """Return the configuration in force (YAML) and the first event of a campaign.

    Raises InputError where it has not begun.
    """
    with Archive.open(path, CODEC) as archive:
        first = opening_event(archive)
        if first is None:
            raise InputError(f"{path} holds no campaign yet; run it first")
        found = archive.fold(NAME, fold_version())
        seq, text = (
            (-1, "") if found is None else (found[0], _unpack_fold(found[1]).config)
        )
        for _, _, turn in archive.records(seq + 1):
            text = event_config(turn.event) or text
        return text or first_configuration(archive.attrs, path), first


@dataclass(frozen=True, slots=True, eq=False)
class _MappingPairs:
    """A mapping in its order, with keys of any type."""

    items: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _FrozenSet:
    """The sorted items of a frozenset."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _SavedFold:
    """A fold in the form that the codec takes; texts are JSON as bytes."""

    config: str
    state: _MappingPairs
    entries: Array
    blocks: tuple[int, ...]
    frames: Batch
    labels: Array
    forces: Array
    failures: tuple[Unlabelled, ...]
    label_entries: Array
    others: tuple[Label | Unlabelled, ...]
    task_entries: Array
    rest: _MappingPairs


_CODEC = Codec(
    (
        *CLASSES,
        ExaminationRequest,
        ExplorationRequest,
        FoundCandidates,
        GenerationSummary,
        OpenLabel,
        PartErrors,
        TrainingRequest,
        _MappingPairs,
        _FrozenSet,
        _SavedFold,
    ),
    UPCASTERS,
)


def fold_to_bytes(fold: JournalFold) -> bytes:
    """Return the fold as bytes."""
    state, index, entries = fold.state, fold.label_index, fold.record_index
    label_entries, others = json_columns.label_columns(entries.labels, index)
    small = {f.name: getattr(state, f.name) for f in fields(state)}
    good = [x for x in index.labels.values() if isinstance(x, Label)]
    encoded = _CODEC.encode(
        _SavedFold(
            config=fold.config,
            state=_to_plain({k: v for k, v in small.items() if k not in _GROWING}),
            entries=_entries_array(list(state.entries())),
            blocks=(*(len(x.entries) for x in state.blocks), len(state.recent)),
            frames=pack_frames(list(index.frames.values())),
            labels=_labels_array(index, good),
            forces=np.concatenate([np.zeros((0, 3)), *(x.forces for x in good)]),
            failures=tuple(
                x for x in index.labels.values() if isinstance(x, Unlabelled)
            ),
            label_entries=label_entries,
            others=others,
            task_entries=json_columns.task_columns(entries.tasks),
            rest=_to_plain({name: getattr(entries, name) for name in _REST}),
        )
    )
    header = {"versions": encoded.versions, "frames": encoded.frames}
    return record.pack_record({**header, "record": encoded.tree}, encoded.arrays)


def fold_from_bytes(seq: int, data: bytes) -> JournalFold:
    """Return the fold from its bytes; `seq` is its last record."""
    found = _unpack_fold(data)
    entries = iter(_array_entries(found.entries))
    *blocks, recent = (_first_entries(entries, count) for count in found.blocks)
    small = LoopState(**_from_plain(found.state))
    state = replace(small, blocks=label_blocks(blocks), recent=recent)
    index = _label_index(found)
    records = _record_index(found, index)
    return JournalFold(seq, found.config, state, index, records)


def _unpack_fold(data: bytes) -> _SavedFold:
    header, arrays = record.unpack_record(data, NAME)
    tree, frames, versions = (header[key] for key in ("record", "frames", "versions"))
    saved: _SavedFold = _CODEC.decode(
        EncodedRecord(tree, tuple(arrays), tuple(frames), versions)
    )
    return saved


def _first_entries(entries: Iterator[LabelState], count: int) -> tuple[LabelState, ...]:
    return tuple(next(entries) for _ in range(count))


def _to_plain(value: Any) -> Any:
    match value:
        case Mapping():
            return _MappingPairs(
                tuple((key, _to_plain(each)) for key, each in value.items())
            )
        case frozenset() | set():
            return _FrozenSet(tuple(sorted(value)))
        case _:
            return value


def _from_plain(value: Any) -> Any:
    match value:
        case _MappingPairs(items=items):
            return {key: _from_plain(each) for key, each in items}
        case _FrozenSet(items=items):
            return frozenset(items)
        case _:
            return value


def _entries_array(entries: Sequence[LabelState]) -> Array:
    names = [f.name for f in fields(LabelState)]
    columns = {name: [getattr(x, name) for x in entries] for name in names}
    columns["doubts"] = [doubts.doubts_to_text(found) for found in columns["doubts"]]
    return json_columns.json_bytes(columns)


def _array_entries(text: Array) -> Iterator[LabelState]:
    columns = json_columns.json_tree(text)
    known = {
        text: doubts.doubts_of_details({doubts.KEY: text})
        for text in {*columns["doubts"]}
    }
    columns["doubts"] = [known[text] for text in columns["doubts"]]
    for values in zip(*columns.values(), strict=True):
        yield LabelState(*values)


def _labels_array(index: LabelIndex, good: Iterable[Label]) -> Array:
    """Encode the keys of all labels and failures, and the columns of the labels."""
    columns = ("energy", "cpu_seconds", "details")
    values = {name: [getattr(x, name) for x in good] for name in columns}
    return json_columns.json_bytes(
        {
            "keys": [list(key) for key in index.labels],
            "good": [isinstance(x, Label) for x in index.labels.values()],
            "computed": [key in index.computed for key in index.labels],
            "sizes": [len(x.forces) for x in good],
            "stress": [None if x.stress is None else x.stress.tolist() for x in good],
            **{
                name: [json_columns.json_value(x) for x in each]
                for name, each in values.items()
            },
        }
    )


def _label_index(found: _SavedFold) -> LabelIndex:
    columns = json_columns.json_tree(found.labels)
    keys = [(level, frame) for level, frame in columns["keys"]]
    ends = np.cumsum([0, *columns["sizes"]]).tolist()
    forces = (found.forces[a:b] for a, b in pairwise(ends))
    stresses = (None if x is None else np.array(x) for x in columns["stress"])
    numbers = (columns["energy"], forces, columns["cpu_seconds"])
    facts = zip(*numbers, columns["details"], stresses, strict=True)
    failures = iter(found.failures)
    labels: dict[tuple[str, str], Label | Unlabelled] = {
        (level, frame): Label(frame, level, *next(facts)) if good else next(failures)
        for (level, frame), good in zip(keys, columns["good"], strict=True)
    }
    computed = {key for key, own in zip(keys, columns["computed"], strict=True) if own}
    return LabelIndex({x.id: x for x in found.frames.frames()}, labels, computed)


def _record_index(found: _SavedFold, index: LabelIndex) -> RecordIndex:
    rest = _from_plain(found.rest)
    return RecordIndex(
        labels=list(
            json_columns.labels_from_columns(found.label_entries, found.others, index)
        ),
        tasks=list(json_columns.tasks_from_columns(found.task_entries)),
        trainings=list(rest["trainings"]),
        rechecked=list(rest["rechecked"]),
        open_labels=rest["open_labels"],
        retries=set(rest["retries"]),
        explorations=rest["explorations"],
        examinations=rest["examinations"],
        round=rest["round"],
        generation=rest["generation"],
    )
