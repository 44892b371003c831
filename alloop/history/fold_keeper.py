"""The fold and columns that a driver keeps up to date with its journal."""

from collections.abc import Iterator

from alloop.history.column_filler import ColumnFiller
from alloop.history.journal_codec import described, first_configuration
from alloop.history.journal_fold import JournalFold
from alloop.history.reader import History, Records
from alloop.history.saved_fold import load_saved_fold, save_fold
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.store.archive import Archive

_FEW, _PART = 64, 0.1  # most records beyond the kept fold, and as a part of all


class FoldKeeper:
    """The fold of a growing journal, its columns, and the fold saved in the store.

    Opening replays only the records beyond the saved fold: fewer than 64 after a clean
    end, about a tenth of the journal at most after a kill.
    """

    def __init__(self, archive: Archive) -> None:
        """archive: open for writing."""
        self._archive = archive
        self.known: JournalFold = load_saved_fold(archive)
        self._kept = self.known.seq
        self._filler = ColumnFiller(archive, self.known.seq, self.known.state)
        for _, _, turn in archive.records(self.known.seq + 1):
            self.known.add_turn(turn)
            self._filler.add_turn(turn, self.known.state)

    @property
    def config(self) -> str:
        """The configuration in force (YAML)."""
        archive = self._archive
        return self.known.config or first_configuration(archive.attrs, archive.path)

    def add_turn(self, turn: e.Turn, state: LoopState) -> None:
        """Add a committed turn that the driver has added to the label index already."""
        self.known.add_indexed_turn(turn, state)
        self._filler.add_turn(turn, state)

    def history(self) -> History:
        """Return the history that a reader would see now."""
        archive = self._archive
        entries = Records(archive.path, self.known.seq + 1)
        return History(archive.path, described(archive), entries, self.known)

    def last_events(self, count: int) -> Iterator[e.Event]:
        """Yield the last `count` events."""
        for _, _, turn in self._archive.records(max(0, self.known.seq + 1 - count)):
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
        self._save_fold(max(_FEW, int(_PART * self.known.seq)))

    def close(self) -> None:
        """Save the fold at the normal end of a run."""
        self._save_fold(_FEW)

    def _save_fold(self, least: int) -> None:
        if self.known.seq - self._kept >= least:
            save_fold(self._archive, self.known)
            self._kept = self.known.seq
