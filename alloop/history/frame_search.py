"""Search for a frame by the beginning of its id, among all that the journal names.

Frames with a label are in the label index. For others the columns say in which round
they were proposed, so that a few records are read and not the whole journal. Where
there are no columns, or beyond their end, all explorations are searched.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.store import columns
from alloop.store.schema import DIGITS, id_texts

_SLAB = 65536  # ids that are compared at once
_MAKING = ("Prepared", "Sampled", "Examined")


@dataclass(frozen=True, slots=True, eq=False)
class FoundFrame:
    """A frame, and the exploration that first proposed it (None without one)."""

    frame: Frame
    explored: e.Explored | None


@dataclass(frozen=True, slots=True)
class _ColumnHints:
    """Search result of the columns for a prefix.

    ids: those that fit; rounds: those that proposed them; last_seq: the last
    record that the columns hold.
    """

    ids: frozenset[FrameId]
    rounds: frozenset[int]
    last_seq: int


def find_frame(history: History, prefix: str) -> FoundFrame:
    """Return the one frame whose id begins with `prefix`.

    Raises InputError where none or several do.
    """
    frames = {
        key: x
        for key, x in history.label_index.frames.items()
        if _has_prefix(key, prefix)
    }
    hints = _column_hints(history.path, prefix)
    _refuse_several(prefix, {*frames, *hints.ids})
    first: dict[FrameId, e.Explored] = {}
    for entry in history.select(_record_numbers(history, hints)):
        event = entry.turn.event
        for frame in _named_frames(event):
            if _has_prefix(frame.id, prefix):
                frames.setdefault(frame.id, frame)
                if isinstance(event, e.Explored):
                    first.setdefault(frame.id, event)
    _refuse_several(prefix, set(frames))
    for key, frame in frames.items():
        return FoundFrame(frame, first.get(key))
    raise _no_such_frame(prefix, "no frame")


def _record_numbers(history: History, hints: _ColumnHints) -> list[int]:
    """Return the numbers of the records that may name the frame."""
    return [
        task.seq
        for task in history.record_index.tasks
        if task.kind in _MAKING
        or (
            task.kind == "Explored"
            and (
                task.seq > hints.last_seq
                or history.record_index.exploration(task.name).round in hints.rounds
            )
        )
    ]


def _named_frames(event: e.Event) -> Iterator[Frame]:
    match event:
        case e.Prepared():
            yield event.minimum
            yield from event.seeds
        case e.Sampled():
            yield from event.frames
        case e.Examined():
            yield from (x.frame for x in event.frames)
        case e.Explored():
            yield from (x.frame for x in (*event.candidates, *event.controls))


def _has_prefix(frame: FrameId, prefix: str) -> bool:
    return frame.startswith(prefix)


def _refuse_several(prefix: str, ids: set[FrameId]) -> None:
    if len(ids) > 1:
        raise _no_such_frame(prefix, f"{len(ids)} frames")


def _no_such_frame(prefix: str, what: str) -> InputError:
    return InputError(
        f"expected the beginning of one frame's id, `{prefix}` fits {what}; "
        "`alloop log STORE` shows the ids"
    )


def _column_hints(path: Path, prefix: str) -> _ColumnHints:
    none = _ColumnHints(frozenset(), frozenset(), -1)
    if not path.is_dir():
        return none
    last_seq = columns.appendable_record(path)
    if last_seq < 0:
        return none
    try:
        ids = dict(_matching_ids(columns.open_column(path, "structures/id"), prefix))
        return _ColumnHints(
            frozenset(ids.values()), _proposing_rounds(path, ids), last_seq
        )
    except (OSError, ValueError, RuntimeError, KeyError):
        return none  # damaged: search the journal instead


def _matching_ids(column: Any, prefix: str) -> Iterator[tuple[int, FrameId]]:
    """Yield (row, id) of the ids that begin with `prefix`."""
    digits = np.frombuffer(prefix.encode()[: DIGITS + 1], np.uint8)
    if len(digits) > DIGITS:
        return
    for begin in range(0, column.shape[0], _SLAB):
        slab = column[begin : begin + _SLAB]
        rows = np.flatnonzero((slab[:, : len(digits)] == digits).all(axis=1))
        yield from zip((begin + rows).tolist(), id_texts(slab[rows]), strict=True)


def _proposing_rounds(path: Path, rows: Iterable[int]) -> frozenset[int]:
    structures, rounds = (
        columns.open_column(path, f"scores/{key}")[:] for key in ("structure", "round")
    )
    return frozenset(rounds[np.isin(structures, list(rows))].tolist())
