"""Read access to a campaign: the fold of its journal, and the records themselves.

The fold is the one that the driver saved plus the records since; the journal is
replayed from its first record only where there is none. Records are read from disk on
access and not cached. Reading is safe while a driver runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.history.journal_codec import CODEC as CODEC
from alloop.history.journal_codec import checked_attributes, first_configuration
from alloop.history.record_index import LabelIndex, RecordIndex
from alloop.history.saved_fold import JournalFold, load_saved_fold
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.store.addresses import place_name
from alloop.store.archive import Archive

_Event = TypeVar("_Event")
_LOOK = 0.5  # s between two checks for new records
_NONE = np.zeros((0, 0))


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A turn with its sequence number and the time of its commit (s since 1970)."""

    seq: int
    time: float
    turn: e.Turn


@dataclass(frozen=True, slots=True)
class Records(Sequence[JournalEntry]):
    """The first `length` records of the store at `path`, read from disk on access."""

    path: Path
    length: int

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[JournalEntry]:
        return self.since(0)

    @overload
    def __getitem__(self, key: int) -> JournalEntry: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[JournalEntry, ...]: ...
    def __getitem__(self, key: int | slice) -> JournalEntry | tuple[JournalEntry, ...]:
        if isinstance(key, slice):
            return tuple(self.select(range(self.length)[key]))
        return next(self.select([range(self.length)[key]]))

    def since(self, start: int) -> Iterator[JournalEntry]:
        """Yield the records from number `start` on."""
        with Archive.open(self.path, CODEC) as archive:
            for seq, time, turn in archive.records(start):
                if seq >= self.length:  # a driver has added records since
                    return
                yield JournalEntry(seq, time, turn)

    def select(self, numbers: Iterable[int]) -> Iterator[JournalEntry]:
        """Yield the records of these numbers, which must ascend."""
        with Archive.open(self.path, CODEC) as archive:
            for seq, time, turn in archive.select(numbers):
                yield JournalEntry(seq, time, turn)


class GenerationRecord(NamedTuple):
    """A trained generation and the number of its record."""

    seq: int
    event: e.Trained


@dataclass(frozen=True, eq=False)
class History:
    """The contents of a store: attributes, records, and their fold (`fold`)."""

    path: Path
    attrs: dict[str, Any]
    entries: Sequence[JournalEntry]
    fold: JournalFold

    @classmethod
    def from_entries(
        cls, path: Path, attrs: dict[str, Any], entries: Sequence[JournalEntry]
    ) -> "History":
        """Make a history from all entries of a journal, from the first one on."""
        fold = JournalFold()
        for entry in entries:
            fold.add_turn(entry.turn)
        return cls(path, attrs, entries, fold)

    @property
    def place(self) -> str:
        """The path of the store, or the address that it was fetched from."""
        return place_name(self.path)

    @property
    def state(self) -> LoopState:
        """The state after the last turn."""
        return self.fold.state

    @property
    def label_index(self) -> LabelIndex:
        """Frames and labels by id."""
        return self.fold.label_index

    @property
    def record_index(self) -> RecordIndex:
        """Labels and tasks, in the order of the journal."""
        return self.fold.record_index

    @cached_property
    def opened(self) -> e.Opened:
        """The first event: start molecules, levels and labels that the user supplied.

        Raises InputError where no campaign has begun.
        """
        for _, event in self.of_kind(e.Opened):
            return event
        raise InputError(f"{self.path} holds no campaign yet; run it first")

    @property
    def config(self) -> str:
        """The resolved configuration in force (YAML)."""
        return self.fold.config or first_configuration(self.attrs, self.path)

    def events(self) -> Iterator[tuple[JournalEntry, e.Event]]:
        """Yield every event, in order; reads the whole journal."""
        for entry in self.entries:
            yield entry, entry.turn.event

    def of_kind(
        self, kind: type[_Event], last: int | None = None
    ) -> Iterator[tuple[JournalEntry, _Event]]:
        """Yield the events of a kind other than a label's, or the `last` ones of them.

        Reads only their records.
        """
        numbers = [x.seq for x in self.record_index.tasks if x.kind == kind.__name__]
        for entry in self.select(numbers if last is None else numbers[-last:]):
            if isinstance(entry.turn.event, kind):
                yield entry, entry.turn.event

    def select(self, numbers: Sequence[int]) -> Iterator[JournalEntry]:
        """Return the records of these numbers, which must ascend."""
        if isinstance(self.entries, Records):
            return self.entries.select(numbers)
        return (self.entries[number] for number in numbers)

    @cached_property
    def generations(self) -> tuple[GenerationRecord, ...]:
        """The generations in order, with the numbers of their records.

        Without landmarks and the training history, which grow with the labels: see
        `trained`.
        """
        return tuple(
            GenerationRecord(entry.seq, replace(event, landmarks=_NONE, history={}))
            for entry, event in self.of_kind(e.Trained)
        )

    @property
    def best(self) -> tuple[GenerationRecord, ...]:
        """The generation that is used by default, see `LoopState.best`.

        Empty before the first.
        """
        number = self.state.generations.best
        return tuple(x for x in self.generations if x.event.generation == number)

    def trained(self) -> list[e.Trained]:
        """Return the full `Trained` events, in order, read from the journal."""
        return [event for _, event in self.of_kind(e.Trained)]

    def rechecked(self) -> Sequence[e.Rechecked]:
        """Return the changes of labels that were computed again, in order."""
        return self.record_index.rechecked

    def priced(self) -> list[e.Priced]:
        """Return the measured label costs, in order; the last ones are in force."""
        return [event for _, event in self.of_kind(e.Priced)]

    def frame(self, prefix: str) -> Frame:
        """Return the labelled frame whose id begins with `prefix`.

        Raises InputError where none or several do.
        """
        ids = [key for key in self.label_index.frames if key.startswith(prefix)]
        if len(ids) != 1:
            what = "none" if not ids else f"{len(ids)} frames"
            raise InputError(
                f"expected the id of one frame, `{prefix}` fits {what}; "
                "`alloop log STORE` lists the ids"
            )
        return self.label_index.frames[ids[0]]


def read_history(path: Path) -> History:
    """Return the history of a store, which a driver may be using."""
    with Archive.open(path, CODEC) as archive:
        return history_of(archive)


def follow_records(path: Path, start: int) -> Iterator[JournalEntry]:
    """Yield the records from number `start` on, then new ones as they come; endless."""
    with Archive.open(path, CODEC) as archive:
        while True:
            for seq, time, turn in archive.records(start):
                yield JournalEntry(seq, time, turn)
                start = seq + 1
            sleep(_LOOK)


def history_of(archive: Archive) -> History:
    """Return the history of an open archive."""
    fold = load_saved_fold(archive)
    for _, _, turn in archive.records(fold.seq + 1):
        fold.add_turn(turn)
    entries = Records(archive.path, fold.seq + 1)
    return History(archive.path, checked_attributes(archive), entries, fold)
