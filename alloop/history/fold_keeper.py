"""What a driver knows of its journal, and what it keeps beside it for the next one."""

from collections.abc import Iterator

from alloop.history.column_filler import ColumnFiller
from alloop.history.journal_codec import described, first_configuration
from alloop.history.journal_fold import JournalFold
from alloop.history.reader import History, Records
from alloop.history.saved_fold import load_saved_fold, save_fold
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.store.archive import Archive

_FEW, _PART = 64, 0.1  # records, and of all: so many may lie beyond the kept fold


class FoldKeeper:
    """The fold of a journal that grows, its columns and the kept fold.

    Opening replays only the records beyond the kept fold, which is none at all after a
    clean end, and a tenth of the journal at most after a kill.
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
        """A turn was committed; the driver has entered it in the ledger."""
        self.known.add_indexed_turn(turn, state)
        self._filler.add_turn(turn, state)

    def history(self) -> History:
        """What readers see of the journal now."""
        archive = self._archive
        entries = Records(archive.path, self.known.seq + 1)
        return History(archive.path, described(archive), entries, self.known)

    def last_events(self, count: int) -> Iterator[e.Event]:
        """The last events, so many of them."""
        for _, _, turn in self._archive.records(max(0, self.known.seq + 1 - count)):
            yield turn.event

    def fill_columns(self) -> None:
        """Fill the columns."""
        self._filler.fill_columns()

    def compact(self) -> None:
        """Fill the columns, and keep the fold where much is new.

        A fold is as large as what it holds; written each time the journal has grown by
        a part, it costs a multiple of the journal in all, however long that is.
        """
        self.fill_columns()
        self._save_fold(max(_FEW, int(_PART * self.known.seq)))

    def close(self) -> None:
        """Keep the fold, as a run ends as it should."""
        self._save_fold(_FEW)

    def _save_fold(self, least: int) -> None:
        if self.known.seq - self._kept >= least:
            save_fold(self._archive, self.known)
            self._kept = self.known.seq
