"""The fold of a journal (state, label index and record index), and its saved form.

The bytes are JSON and arrays. Small parts go through the codec of the journal; what
grows with the campaign (entries, frames, labels) is laid out in columns, so that a
hundred thousand labels load in seconds. The journal remains the only source: a fold
that other code made (see `fold_version`) counts as absent, and the journal is replayed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core import doubts
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import AlloopError, DamagedError, InputError
from alloop.core.records import Label, Unlabelled
from alloop.history.journal_codec import (
    CLASSES,
    CODEC,
    UPCASTERS,
    event_config,
    first_configuration,
    opening_event,
)
from alloop.history.record_index import (
    ExaminationRequest,
    ExplorationRequest,
    LabelEntry,
    LabelIndex,
    OpenLabel,
    RecordIndex,
    TaskEntry,
    TrainingRequest,
)
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.loop.reducer import next_state
from alloop.loop.state import (
    CampaignLabels,
    ExaminationState,
    ExplorationState,
    Generations,
    LabelState,
    LoopState,
    PartErrors,
    label_blocks,
)
from alloop.store import record
from alloop.store.archive import Archive
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.record import Array


@contextmanager
def explain_record(seq: int) -> Iterator[None]:
    """Raise DamagedError for whatever a record raises that does not fit the others.

    Its checksum is right and so are its types, so a person or a bug wrote it.
    """
    try:
        yield
    except AlloopError:
        raise
    except Exception as error:
        raise DamagedError(
            f"record {seq} does not follow from those before it "
            f"({type(error).__name__}: {str(error)[:80]}); "
            "`alloop doctor STORE --repair OUT` makes a store without it"
        ) from error


@dataclass(slots=True)
class JournalFold:
    """The fold of a journal up to record `seq`.

    config: the configuration in force (YAML), "" while it is that of the store.
    """

    seq: int = -1
    config: str = ""
    state: LoopState = field(default_factory=LoopState)
    label_index: LabelIndex = field(default_factory=LabelIndex)
    record_index: RecordIndex = field(default_factory=RecordIndex)

    def add_turn(self, turn: e.Turn) -> None:
        """Add the next turn.

        Raises DamagedError if it does not follow from those before it.
        """
        with explain_record(self.seq + 1):
            self.label_index.add_turn(turn)
            state = next_state(self.state, turn.event, turn.commands)
            self.add_indexed_turn(turn, state)

    def add_indexed_turn(self, turn: e.Turn, state: LoopState) -> None:
        """Add the next turn, which the label index has; state: the one after it."""
        self.seq += 1
        self.config = event_config(turn.event) or self.config
        self.state = state
        self.record_index.add_turn(self.seq, turn, self.label_index)


NAME = "driver"
_GROWING = ("blocks", "recent", "summed")  # of the labels, laid out in columns
_PARTS = {
    "labels": CampaignLabels,
    "generations": Generations,
    "exploration": ExplorationState,
    "examination": ExaminationState,
}
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
    saved = archive.fold(NAME, fold_version())
    return JournalFold() if saved is None else fold_from_bytes(*saved)


def is_fold_forged(archive: Archive) -> bool:
    """Return True if the saved fold, whoever saved it, is not what its journal gives.

    A fold that other code made is not compared. Replays the journal.
    """
    saved = archive.fold(NAME, fold_version(), foreign=True)
    if saved is None:
        return False
    last, data = saved
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
        saved = archive.fold(NAME, fold_version())
        seq, text = (
            (-1, "") if saved is None else (saved[0], _unpack_fold(saved[1]).config)
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
    label_entries, others = label_columns(entries.labels, index)
    good = [x for x in index.labels.values() if isinstance(x, Label)]
    encoded = _CODEC.encode(
        _SavedFold(
            config=fold.config,
            state=_to_plain(_small_fields(state)),
            entries=_entries_array(list(state.labels.entries())),
            blocks=(
                *(len(x.entries) for x in state.labels.blocks),
                len(state.labels.recent),
            ),
            frames=pack_frames(list(index.frames.values())),
            labels=_labels_array(index, good),
            forces=np.concatenate([np.zeros((0, 3)), *(x.forces for x in good)]),
            failures=tuple(
                x for x in index.labels.values() if isinstance(x, Unlabelled)
            ),
            label_entries=label_entries,
            others=others,
            task_entries=task_columns(entries.tasks),
            rest=_to_plain({name: getattr(entries, name) for name in _REST}),
        )
    )
    header = {"versions": encoded.versions, "frames": encoded.frames}
    return record.pack_record({**header, "record": encoded.tree}, encoded.arrays)


def fold_from_bytes(seq: int, data: bytes) -> JournalFold:
    """Return the fold from its bytes; `seq` is its last record."""
    saved = _unpack_fold(data)
    entries = iter(_array_entries(saved.entries))
    *blocks, recent = (_first_entries(entries, count) for count in saved.blocks)
    facts = _from_plain(saved.state)
    parts = {name: part(**facts.pop(name)) for name, part in _PARTS.items()}
    labels = replace(parts["labels"], blocks=label_blocks(blocks), recent=recent)
    state = LoopState(**facts, **parts | {"labels": labels})
    index = _label_index(saved)
    records = _record_index(saved, index)
    return JournalFold(seq, saved.config, state, index, records)


def _small_fields(state: LoopState) -> dict[str, Any]:
    """Return the fields of the state, and as trees those of its parts."""
    facts = {x.name: getattr(state, x.name) for x in fields(state)}
    for name, part in _PARTS.items():
        names = {x.name for x in fields(part)}.difference(_GROWING)
        facts[name] = {x: getattr(facts[name], x) for x in sorted(names)}
    return facts


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
                tuple((key, _to_plain(item)) for key, item in value.items())
            )
        case frozenset() | set():
            return _FrozenSet(tuple(sorted(value)))
        case _:
            return value


def _from_plain(value: Any) -> Any:
    match value:
        case _MappingPairs(items=items):
            return {key: _from_plain(item) for key, item in items}
        case _FrozenSet(items=items):
            return frozenset(items)
        case _:
            return value


def _entries_array(entries: Sequence[LabelState]) -> Array:
    names = [f.name for f in fields(LabelState)]
    columns = {name: [getattr(x, name) for x in entries] for name in names}
    columns["doubts"] = [doubts.doubts_to_text(x) for x in columns["doubts"]]
    return json_bytes(columns)


def _array_entries(text: Array) -> Iterator[LabelState]:
    columns = json_tree(text)
    by_text = {
        text: doubts.doubts_of_details({doubts.KEY: text})
        for text in {*columns["doubts"]}
    }
    columns["doubts"] = [by_text[text] for text in columns["doubts"]]
    for values in zip(*columns.values(), strict=True):
        yield LabelState(*values)


def _labels_array(index: LabelIndex, good: Iterable[Label]) -> Array:
    """Encode the keys of all labels and failures, and the columns of the labels."""
    columns = ("energy", "cpu_seconds", "details")
    values = {name: [getattr(x, name) for x in good] for name in columns}
    return json_bytes(
        {
            "keys": [list(key) for key in index.labels],
            "good": [isinstance(x, Label) for x in index.labels.values()],
            "computed": [key in index.computed for key in index.labels],
            "sizes": [len(x.forces) for x in good],
            "stress": [None if x.stress is None else x.stress.tolist() for x in good],
            **{
                name: [json_value(x) for x in column] for name, column in values.items()
            },
        }
    )


def _label_index(saved: _SavedFold) -> LabelIndex:
    columns = json_tree(saved.labels)
    keys = [(level, frame) for level, frame in columns["keys"]]
    ends = np.cumsum([0, *columns["sizes"]]).tolist()
    forces = (saved.forces[a:b] for a, b in pairwise(ends))
    stresses = (None if x is None else np.array(x) for x in columns["stress"])
    numbers = (columns["energy"], forces, columns["cpu_seconds"])
    facts = zip(*numbers, columns["details"], stresses, strict=True)
    failures = iter(saved.failures)
    labels: dict[tuple[str, str], Label | Unlabelled] = {
        (level, frame): Label(frame, level, *next(facts)) if good else next(failures)
        for (level, frame), good in zip(keys, columns["good"], strict=True)
    }
    computed = {
        key
        for key, computed_ in zip(keys, columns["computed"], strict=True)
        if computed_
    }
    return LabelIndex({x.id: x for x in saved.frames.frames()}, labels, computed)


def _record_index(saved: _SavedFold, index: LabelIndex) -> RecordIndex:
    rest = _from_plain(saved.rest)
    return RecordIndex(
        labels=list(labels_from_columns(saved.label_entries, saved.others, index)),
        tasks=list(tasks_from_columns(saved.task_entries)),
        trainings=list(rest["trainings"]),
        rechecked=list(rest["rechecked"]),
        open_labels=rest["open_labels"],
        retries=set(rest["retries"]),
        explorations=rest["explorations"],
        examinations=rest["examinations"],
        round=rest["round"],
        generation=rest["generation"],
    )


_OF_REQUEST = ("level", "fidelity", "purpose", "molecule", "reason")
_NUMBERS = ("molecule", "round", "generation", "asked", "answered", "cached", "retry")
_WORDS = ("fidelity", "level", "purpose", "reason")
_TIMES = ("started", "ended", "cpu_seconds")


def json_bytes(tree: Any) -> Array:
    """Return a tree as JSON in bytes."""
    return np.frombuffer(json.dumps(tree, default=json_value).encode(), np.uint8)


def json_tree(text: Array) -> Any:
    """Return the tree from its bytes."""
    return json.loads(text.tobytes())


def json_value(value: Any) -> Any:
    """Convert numpy scalars and mappings to values that JSON takes."""
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else value


def label_columns(
    entries: Sequence[LabelEntry], index: LabelIndex
) -> tuple[Array, tuple[Any, ...]]:
    """Encode label entries; return also their records that the label index lacks."""
    rows = {frame: row for row, frame in enumerate(index.frames)}
    held = [index.get(x.level, x.frame.id) is x.record for x in entries]
    columns = {
        "frame": [rows[x.frame.id] for x in entries],
        "held": held,
        **{name: [getattr(x, name) for x in entries] for name in _NUMBERS},
        **{name: _encode_words([getattr(x, name) for x in entries]) for name in _WORDS},
        **_timing_columns([x.timing for x in entries]),
    }
    others = (
        x.record for x, in_index in zip(entries, held, strict=True) if not in_index
    )
    return json_bytes(columns), tuple(others)


def labels_from_columns(
    text: Array, others: Iterable[Label | Unlabelled], index: LabelIndex
) -> Iterator[LabelEntry]:
    """Decode the label entries that `label_columns` encoded."""
    columns, rest, frames = json_tree(text), iter(others), list(index.frames.values())
    words = {name: _decode_words(columns[name]) for name in _WORDS}
    values_by_name = words | {name: columns[name] for name in _NUMBERS}
    places = zip(
        columns["frame"], columns["held"], _timings_from_columns(columns), strict=True
    )
    facts = zip(*values_by_name.values(), strict=True)
    for (row, held, timing), values in zip(places, facts, strict=True):
        named = dict(zip(values_by_name, values, strict=True))
        frame = frames[row]
        record = index.labels[named["level"], frame.id] if held else next(rest)
        request = LabelFrame(frame, **{name: named.pop(name) for name in _OF_REQUEST})
        yield LabelEntry(request, record=record, timing=timing, **named)


def task_columns(entries: Sequence[TaskEntry]) -> Array:
    """Encode task entries."""
    columns = {
        "seq": [x.seq for x in entries],
        "kind": _encode_words([x.kind for x in entries]),
        "name": [x.name for x in entries],
        **_timing_columns([x.timing for x in entries]),
    }
    return json_bytes(columns)


def tasks_from_columns(text: Array) -> Iterator[TaskEntry]:
    """Decode the task entries that `task_columns` encoded."""
    columns = json_tree(text)
    kinds = _decode_words(columns["kind"])
    facts = zip(
        columns["seq"],
        kinds,
        columns["name"],
        _timings_from_columns(columns),
        strict=True,
    )
    return (TaskEntry(*values) for values in facts)


def _timing_columns(timings: Sequence[e.Timing]) -> dict[str, Any]:
    times = {name: [getattr(x, name) for x in timings] for name in _TIMES}
    return {**times, "worker": _encode_words([x.worker for x in timings])}


def _timings_from_columns(columns: Mapping[str, Any]) -> Iterator[e.Timing]:
    times = (columns[name] for name in _TIMES)
    facts = zip(*times, _decode_words(columns["worker"]), strict=True)
    return (e.Timing(*values) for values in facts)


def _encode_words(texts: Sequence[str]) -> Any:
    """Encode repeated words, each written once."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(texts))}
    return {"words": list(numbers), "which": [numbers[word] for word in texts]}


def _decode_words(encoded: Any) -> list[str]:
    words = encoded["words"]
    return [words[number] for number in encoded["which"]]
