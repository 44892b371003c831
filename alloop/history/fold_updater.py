"""The fold and the columns that a driver keeps up to date with its journal.

Only new records make rows, and of the columns only the open chunks are read, so the
cost of a compaction scales with what is new. Columns that are missing, damaged or of
another schema are rebuilt from the journal, piece by piece.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from alloop.core.errors import DamagedError
from alloop.history.column_rows import ColumnRows
from alloop.history.journal_codec import checked_attributes, first_configuration
from alloop.history.reader import History, Records
from alloop.history.saved_fold import (
    JournalFold,
    explain_record,
    load_saved_fold,
    save_fold,
)
from alloop.loop import events as e
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState
from alloop.store import columns, root
from alloop.store.archive import Archive
from alloop.store.chunks import read_array
from alloop.store.record import Array
from alloop.store.schema import DIGITS

_IDS = "structures/id"
_PIECE = 1024  # most records whose rows are held in memory
_FEW, _PART = 64, 0.1  # most records beyond the kept fold, and as a part of all


class FoldUpdater:
    """The fold of a growing journal, its columns, and the fold saved in the store.

    Opening replays only the records beyond the saved fold: fewer than 64 after a clean
    end, about a tenth of the journal at most after a kill.
    """

    def __init__(self, archive: Archive) -> None:
        """archive: open for writing."""
        self._archive = archive
        self.fold: JournalFold = load_saved_fold(archive)
        self._kept = self.fold.seq
        self._filler = ColumnFiller(archive, self.fold.seq, self.fold.state)
        for _, _, turn in archive.records(self.fold.seq + 1):
            self.fold.add_turn(turn)
            with explain_record(self.fold.seq):
                self._filler.add_turn(turn, self.fold.state)

    @property
    def config(self) -> str:
        """The configuration in force (YAML)."""
        archive = self._archive
        return self.fold.config or first_configuration(archive.attrs, archive.path)

    def add_turn(self, turn: e.Turn, state: LoopState) -> None:
        """Add a committed turn that the driver has added to the label index already."""
        self.fold.add_indexed_turn(turn, state)
        self._filler.add_turn(turn, state)

    def history(self) -> History:
        """Return the history that a reader would see now."""
        archive = self._archive
        entries = Records(archive.path, self.fold.seq + 1)
        return History(archive.path, checked_attributes(archive), entries, self.fold)

    def last_events(self, count: int) -> Iterator[e.Event]:
        """Yield the last `count` events."""
        for _, _, turn in self._archive.records(max(0, self.fold.seq + 1 - count)):
            yield turn.event

    def fill_columns(self) -> None:
        """Update the columns up to the last turn."""
        self._filler.fill_columns()

    def compact(self) -> None:
        """Fill the columns, and save the fold if much is new.

        The size of a fold grows with the campaign. It is saved only when the journal
        has grown by a fixed part, so that all saves together cost a fixed multiple of
        the journal, however long that is.
        """
        self.fill_columns()
        self._save_fold(max(_FEW, int(_PART * self.fold.seq)))

    def close(self) -> None:
        """Save the fold at the normal end of a run."""
        self._save_fold(_FEW)

    def _save_fold(self, records: int) -> None:
        if self.fold.seq - self._kept >= records:
            save_fold(self._archive, self.fold)
            self._kept = self.fold.seq


class ColumnFiller:
    """The columns of a journal, filled from record `seq` and its state on."""

    def __init__(self, archive: Archive, seq: int, state: LoopState) -> None:
        self._archive = archive
        self._seq = seq
        self._state = state
        self._mark = columns.appendable_record(archive.path)
        self._whole = self._mark >= seq  # no row of a record before `seq` is missing
        self._rows: ColumnRows | None = None

    def add_turn(self, turn: e.Turn, after: LoopState) -> None:
        """Add the next turn; `after` is the state after it."""
        # If an interrupt cuts this short, the rows of the turn are incomplete.
        complete, self._whole = self._whole, False
        self._seq += 1
        if complete and self._seq > self._mark:
            rows = self._open_rows()
            complete = rows is not None
            if rows is not None:
                rows.add_turn(self._state, turn)
        self._state = after
        self._whole = complete
        if self._whole and self._seq - self._mark >= _PIECE:
            self.fill_columns()

    def fill_columns(self) -> None:
        """Update the columns up to the last turn."""
        if self._whole and self._seq == self._mark:
            return
        if not self._try_append():
            self._rebuild()

    def _try_append(self) -> bool:
        """Append the new rows to the columns; return False if that is impossible."""
        rows = self._open_rows() if self._whole and self._seq > self._mark else None
        if rows is None:
            return False
        try:
            self._write_rows(rows, self._state, self._seq)
        except DamagedError:
            return False
        return True

    def _open_rows(self) -> ColumnRows | None:
        if self._rows is None:
            try:
                self._rows = ColumnRows(_structure_rows(self._archive))
            except DamagedError:
                return None
        return self._rows

    def _write_rows(self, rows: ColumnRows, state: LoopState, seq: int) -> None:
        def fresh(after: int) -> Mapping[str, Mapping[str, Array]]:
            if after != self._mark:  # an open chunk could not be read
                raise DamagedError(f"the columns of {self._archive.path} are lost")
            return rows.tables(state)

        if seq > self._mark:
            columns.fill_columns(self._archive, fresh, seq)
            rows.clear()
            self._mark = seq

    def _rebuild(self) -> None:
        """Rebuild the columns from the first record on."""
        columns.clear_columns(self._archive)
        self._rows, self._mark, self._whole = ColumnRows(), -1, True
        state, seq = LoopState(), -1
        for seq, _, turn in self._archive.records():
            with explain_record(seq):
                self._rows.add_turn(state, turn)
                state = next_state(state, turn.event, turn.commands)
            if (seq + 1) % _PIECE == 0:
                self._write_rows(self._rows, state, seq)
        self._write_rows(self._rows, state, seq)


def _structure_rows(archive: Archive) -> dict[bytes, int]:
    """Return the rows of `structures` by the bytes of their ids.

    Raises DamagedError where they cannot be read.
    """
    if columns.appendable_record(archive.path) < 0:
        return {}
    try:
        members = root.node_members(root.read_root(archive.path))
        ids = read_array(archive.path / _IDS, members[_IDS])
        digits = bytes.fromhex(ids.astype(np.uint8).tobytes().decode())
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedError(f"the ids of {archive.path} cannot be read") from error
    size = DIGITS // 2
    return {digits[i * size : (i + 1) * size]: i for i in range(len(ids))}
