"""What grows with a campaign as columns of JSON, which are read in seconds. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alloop.core.records import Label, Unlabelled
from alloop.loop import events as e
from alloop.loop.chronicle import Deed, Told
from alloop.loop.ledger import Ledger
from alloop.store.record import Array

_NUMBERS = ("molecule", "round", "generation", "asked", "answered", "cached", "retry")
_WORDS = ("fidelity", "level", "purpose", "reason")
_TIMES = ("started", "ended", "cpu_seconds")


def text(tree: Any) -> Array:
    """A tree of JSON as bytes."""
    return np.frombuffer(json.dumps(tree, default=plain).encode(), np.uint8)


def tree(text: Array) -> Any:
    """The tree from its bytes."""
    return json.loads(text.tobytes())


def plain(value: Any) -> Any:
    """What JSON takes, of numpy's numbers and of mappings."""
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else value


def labels(told: Sequence[Told], ledger: Ledger) -> tuple[Array, tuple[Any, ...]]:
    """The stories of labels, and the records among them that the ledger lacks."""
    rows = {frame: row for row, frame in enumerate(ledger.frames)}
    held = [ledger.get(x.level, x.frame.id) is x.record for x in told]
    columns = {
        "frame": [rows[x.frame.id] for x in told],
        "held": held,
        **{name: [getattr(x, name) for x in told] for name in _NUMBERS},
        **{name: _words([getattr(x, name) for x in told]) for name in _WORDS},
        **_times([x.timing for x in told]),
    }
    others = (x.record for x, own in zip(told, held, strict=True) if not own)
    return text(columns), tuple(others)


def labels_of(
    sheet: Array, others: Iterable[Label | Unlabelled], ledger: Ledger
) -> Iterator[Told]:
    """The stories of labels again."""
    columns, rest, frames = tree(sheet), iter(others), list(ledger.frames.values())
    words = {name: _spelled(columns[name]) for name in _WORDS}
    said = words | {name: columns[name] for name in _NUMBERS}
    places = zip(columns["frame"], columns["held"], _timings(columns), strict=True)
    facts = zip(*said.values(), strict=True)
    for (row, held, timing), values in zip(places, facts, strict=True):
        named = dict(zip(said, values, strict=True))
        frame = frames[row]
        record = ledger.labels[named["level"], frame.id] if held else next(rest)
        yield Told(frame=frame, record=record, timing=timing, **named)


def deeds(found: Sequence[Deed]) -> Array:
    """All other records."""
    columns = {
        "seq": [x.seq for x in found],
        "kind": _words([x.kind for x in found]),
        "name": [x.name for x in found],
        **_times([x.timing for x in found]),
    }
    return text(columns)


def deeds_of(sheet: Array) -> Iterator[Deed]:
    """All other records again."""
    columns = tree(sheet)
    kinds = _spelled(columns["kind"])
    facts = zip(columns["seq"], kinds, columns["name"], _timings(columns), strict=True)
    return (Deed(*each) for each in facts)


def _times(found: Sequence[e.Timing]) -> dict[str, Any]:
    times = {name: [getattr(x, name) for x in found] for name in _TIMES}
    return {**times, "worker": _words([x.worker for x in found])}


def _timings(columns: Mapping[str, Any]) -> Iterator[e.Timing]:
    times = (columns[name] for name in _TIMES)
    facts = zip(*times, _spelled(columns["worker"]), strict=True)
    return (e.Timing(*each) for each in facts)


def _words(found: Sequence[str]) -> Any:
    """Words that repeat, each written once."""
    known = {word: number for number, word in enumerate(dict.fromkeys(found))}
    return {"words": list(known), "which": [known[word] for word in found]}


def _spelled(sheet: Any) -> list[str]:
    words = sheet["words"]
    return [words[number] for number in sheet["which"]]
