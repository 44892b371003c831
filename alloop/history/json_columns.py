"""The growing parts of a fold as columns of JSON, which load in seconds. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alloop.core.records import Label, Unlabelled
from alloop.history.label_index import LabelIndex
from alloop.history.record_index import LabelEntry, TaskEntry
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.store.record import Array

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
    others = (x.record for x, own in zip(entries, held, strict=True) if not own)
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


def task_columns(found: Sequence[TaskEntry]) -> Array:
    """Encode task entries."""
    columns = {
        "seq": [x.seq for x in found],
        "kind": _encode_words([x.kind for x in found]),
        "name": [x.name for x in found],
        **_timing_columns([x.timing for x in found]),
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
    return (TaskEntry(*each) for each in facts)


def _timing_columns(found: Sequence[e.Timing]) -> dict[str, Any]:
    times = {name: [getattr(x, name) for x in found] for name in _TIMES}
    return {**times, "worker": _encode_words([x.worker for x in found])}


def _timings_from_columns(columns: Mapping[str, Any]) -> Iterator[e.Timing]:
    times = (columns[name] for name in _TIMES)
    facts = zip(*times, _decode_words(columns["worker"]), strict=True)
    return (e.Timing(*each) for each in facts)


def _encode_words(found: Sequence[str]) -> Any:
    """Encode repeated words, each written once."""
    known = {word: number for number, word in enumerate(dict.fromkeys(found))}
    return {"words": list(known), "which": [known[word] for word in found]}


def _decode_words(encoded: Any) -> list[str]:
    words = encoded["words"]
    return [words[number] for number in encoded["which"]]
