"""A campaign as readers see it: the journal, replayed. Works beside a live driver."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.core import batch, cost, curve, frame, levels, records
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.loop import events as e
from alloop.loop.learning import replay
from alloop.loop.ledger import Ledger
from alloop.loop.state import LoopState
from alloop.store.archive import Archive
from alloop.store.codec import Codec

_EVENTS = (
    *(e.Prepare, e.Sample, e.LabelFrame, e.Explore, e.Train, e.Stop, e.Forked),
    *(e.Opened, e.Given, e.Amended, e.Prepared, e.Sampled, e.Labelled, e.NotLabelled),
    *(e.Explored, e.Evaluation, e.Trained, e.TaskLost, e.Excluded, e.Timing, e.Turn),
    *(e.Recheck, e.Rechecked, e.Price, e.Priced, e.Retried),
)
_FACTS = (
    *(frame.Frame, batch.Batch, levels.Level, records.Walker, records.Candidate),
    *(records.Label, records.Unlabelled, records.Failure, records.Noise),
    *(cost.Cost, curve.Curve),
)
CLASSES = (*_EVENTS, *_FACTS)
CODEC = Codec(CLASSES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn with its sequence number and the time of its commit (s since 1970)."""

    seq: int
    time: float
    turn: e.Turn


@dataclass(frozen=True, slots=True)
class History:
    """Everything that a store says: attributes, turns, the state they lead to."""

    path: Path
    attrs: dict[str, Any]
    entries: tuple[Entry, ...]
    state: LoopState
    ledger: Ledger

    @property
    def opened(self) -> e.Opened:
        """The first event: start molecules, levels, what the user brought."""
        for entry in self.entries:
            if isinstance(entry.turn.event, e.Opened):
                return entry.turn.event
        raise InputError(f"{self.path} holds no campaign yet; run it first")

    @property
    def config(self) -> str:
        """The resolved configuration in force (YAML)."""
        texts = [configured(event) for _, event in self.events()]
        return next(filter(None, reversed(texts)), str(self.attrs["config"]))

    def events(self) -> Iterator[tuple[Entry, e.Event]]:
        """Every event, in order."""
        for entry in self.entries:
            yield entry, entry.turn.event

    def trained(self) -> list[e.Trained]:
        """The generations, in order."""
        return [x for _, x in self.events() if isinstance(x, e.Trained)]

    def rechecked(self) -> list[e.Rechecked]:
        """How far labels moved when they were made again, in order."""
        return [x for _, x in self.events() if isinstance(x, e.Rechecked)]

    def priced(self) -> list[e.Priced]:
        """What labels were known to cost, in order; the last one is in force."""
        return [x for _, x in self.events() if isinstance(x, e.Priced)]

    def frame(self, prefix: str) -> Frame:
        """The frame whose id starts so; InputError where none or several do."""
        found = [key for key in self.ledger.frames if key.startswith(prefix)]
        if len(found) != 1:
            what = "none" if not found else f"{len(found)} frames"
            raise InputError(
                f"expected the id of one frame, `{prefix}` fits {what}; "
                "`alloop log STORE` lists the ids"
            )
        return self.ledger.frames[found[0]]


def configured(event: e.Event) -> str:
    """The configuration that the event puts in force; "" where it changes nothing."""
    return event.config if isinstance(event, e.Amended | e.Forked) else ""


def read(path: Path) -> History:
    """Read a store, which may be in use by a driver."""
    with Archive.open(path, CODEC) as archive:
        return history_of(archive)


def opened(archive: Archive) -> e.Opened | None:
    """How the campaign of an open archive began; None where it has not."""
    for _, _, turn in archive.records():
        return turn.event if isinstance(turn.event, e.Opened) else None
    return None


def history_of(archive: Archive) -> History:
    """The history of an open archive."""
    entries = tuple(Entry(seq, time, turn) for seq, time, turn in archive.records())
    ledger = Ledger()
    for entry in entries:
        ledger.add(entry.turn)
    state = replay(entry.turn for entry in entries)
    return History(archive.path, dict(archive.attrs), entries, state, ledger)
