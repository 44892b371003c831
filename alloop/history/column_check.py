"""A check of the columns and the saved fold against the journal they are made from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.errors import DamagedError
from alloop.history.column_rows import ColumnRows
from alloop.history.journal_codec import CODEC, checked_attributes, opening_event
from alloop.history.saved_fold import NAME, JournalFold, explain_record, is_fold_forged
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState
from alloop.store import columns, root
from alloop.store.archive import Archive
from alloop.store.chunks import open_array
from alloop.store.column_changes import table_place
from alloop.store.doctor import DamageReport, verify_store
from alloop.store.record import Array
from alloop.store.schema import BOUND, REPLACED
from alloop.store.schema import table_columns as described

_PIECE = 1024  # records whose rows are compared at once
_ADVICE = "nothing is lost, `--repair OUT` makes it from the journal anew"
_HISTORY = "what alloop cannot read is lost, other records are kept by `--repair OUT`"
_FOLD = "nothing is lost, remove `journal/folds` and it is made anew"
_Tables = Mapping[str, Mapping[str, Array]]


def check_columns(path: Path | str) -> list[DamageReport]:
    """Return all damage in a campaign's store.

    Every byte is verified; where all are whole, the saved fold and the rows of the
    columns are compared with those that the journal gives. Raises StoreError where
    there is no store, or a newer alloop made it.
    """
    store = Path(path)
    damages = verify_store(store, CODEC)
    try:
        return damages or [
            *_history_damage(store),
            *_fold_differences(store),
            *_column_differences(store),
        ]
    except DamagedError as error:
        return [DamageReport("journal", str(error), _HISTORY)]


def _history_damage(store: Path) -> Iterator[DamageReport]:
    """Replay the journal: each record is whole, and must follow from the others."""
    with Archive.open(store, CODEC) as archive:
        fold = JournalFold()
        for stored in archive.records():
            fold.add_turn(stored.record)
        if fold.seq >= 0 and opening_event(archive) is None:
            what = "its first record opens no campaign"
            yield DamageReport("record 0", what, _HISTORY)
        checked_attributes(archive)


def _fold_differences(store: Path) -> Iterator[DamageReport]:
    with Archive.open(store, CODEC) as archive:
        if is_fold_forged(archive):
            what = "it is not what the journal says"
            yield DamageReport(f"fold {NAME}", what, _FOLD)


def _column_differences(store: Path) -> Iterator[DamageReport]:
    last_seq = columns.appendable_record(store)
    if last_seq < 0:
        return  # absent or from another version: the next run rebuilds them
    members = root.node_members(root.read_root(store))

    def opened(name: str) -> Any:
        path = _member_path(name, last_seq)
        return open_array(store / path, members[path])

    ends: dict[str, int] = {}
    wrong: set[str] = set()
    for tables in _table_pieces(store, last_seq):
        arrays = {
            f"{name}/{key}": x for name in tables for key, x in tables[name].items()
        }
        for name, values in arrays.items():
            if not _has_rows(opened(name), name, values, ends):
                wrong.add(name)
    lengths = {x: opened(x).shape[0] for x in ends}
    wrong |= {x for x, end in ends.items() if lengths[x] != end}
    for name in sorted(wrong):
        yield DamageReport(name, "it is not what the journal says", _ADVICE)


def _member_path(name: str, last_seq: int) -> str:
    table, _, key = name.rpartition("/")
    return f"{table_place(table, last_seq)}/{key}"


def _table_pieces(store: Path, last_seq: int) -> Iterator[_Tables]:
    """Yield the tables of the journal up to a record, for `_PIECE` records each."""
    rows, state = ColumnRows(), LoopState()
    with Archive.open(store, CODEC) as archive:
        for seq, _, turn in archive.records():
            with explain_record(seq):
                rows.add_turn(state, turn)
                state = next_state(state, turn.event, turn.commands)
            if seq == last_seq or (seq + 1) % _PIECE == 0:
                with explain_record(seq):
                    tables = rows.tables(state)
                last = seq == last_seq
                yield {k: v for k, v in tables.items() if last or k not in REPLACED}
                rows.clear()
            if seq == last_seq:
                return


def _has_rows(array: Any, name: str, values: Array, ends: dict[str, int]) -> bool:
    """Return True if `values` are the next rows of an array; advance `ends`."""
    table, _, key = name.rpartition("/")
    begin = ends.get(name, 0)
    if described(table)[key].along == BOUND:
        before = int(array[begin - 1]) if begin else 0
        values = values[1:] + before if begin else values
    ends[name] = begin + len(values)
    stored = np.asarray(array[begin : ends[name]])
    return stored.shape == values.shape and stored.tobytes() == _bytes_as(
        stored, values
    )


def _bytes_as(stored: Array, values: Array) -> bytes:
    """Return the bytes of the values, converted to the dtype of `found`."""
    return np.asarray(values, stored.dtype).tobytes()
