"""A ruined campaign goes on, and is compared with one that was left alone.

A campaign runs in two sittings, so that a clean stop and what follows it are among the
moments; packs hold few records, so that it seals some. What opening makes of a ruined
store is all that the rest of a run depends on: states that opening makes equal, to the
byte, go on once.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from pathlib import Path

from alloop import config
from alloop.campaign import Campaign
from alloop.core.errors import AlloopError
from alloop.driver.run import RunObserver
from alloop.history.column_check import check_columns
from alloop.history.reader import CODEC, read_history
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.store import packs
from alloop.store.archive import LOCK, Archive
from benchmarks.crashes import disk, tree_of
from benchmarks.toys import (
    TALLY,
    Noted,
    Print,
    committed_twice,
    labelled,
    made,
    made_in,
    redone,
    tally,
    write_tiny,
)
from tests.store.conftest import Quick

FIRST = 20  # turns of the first sitting
_PACK = 16  # records


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault and what became of the campaign.

    fault: its kind, where: at what, number: which of them; wrong: what differs from a
    campaign left alone, "" if nothing does; twice: labels committed twice; redone:
    labels begun again; seconds: until the campaign had its next event.
    """

    fault: str
    where: str
    wrong: str = ""
    twice: int = 0
    redone: int = 0
    seconds: float = 0.0
    number: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How a ruined campaign ended: frames with labels, labels committed twice, labels
    made since, seconds to its next event, what is wrong.
    """

    labelled: frozenset[str]
    twice: int
    since: Noted
    seconds: float
    wrong: str


@dataclass(frozen=True, slots=True)
class Alone:
    """A campaign that was left alone, in whose folder others are ruined; every `each`th
    of these is verified to the byte. ends: of those that went on, by their state.
    """

    folder: Path
    setup: config.Setup
    made: Print
    noted: Noted
    each: int = 1
    numbers: Iterator[int] = field(default_factory=count)
    ends: dict[bytes, End] = field(default_factory=dict)

    def campaign(self, name: str) -> Campaign:
        """The same campaign in another folder."""
        return Campaign(replace(self.setup, store=self.folder / name / "toy.zarr"))


def left_alone(folder: Path, staleness: int, each: int = 1) -> Alone:
    """Run the campaign undisturbed."""
    setup = config.load_campaign(write_tiny(folder / "alone", staleness=staleness))
    with counted(folder / "tally"), disk(Quick()):
        sit(Campaign(setup), FIRST)
        sit(Campaign(setup))
    noted = tally(folder / "tally")
    return Alone(folder, setup, made_in(setup.store), noted, each)


def sit(campaign: Campaign, turns: int | None = None) -> float:
    """Run a campaign, or so many turns of it; the seconds until the first."""
    begun, done = time.perf_counter(), list[float]()

    def observe(_state: LoopState, _turn: e.Turn) -> None:
        done.append(time.perf_counter() - begun)

    stop = RunObserver(observe, stop=lambda: turns is not None and len(done) >= turns)
    campaign.run(watch=stop)
    return done[0] if done else 0.0


@contextlib.contextmanager
def counted(notes: Path) -> Iterator[None]:
    """Labels are noted in a file, and packs are small."""
    before, packs.RECORDS = packs.RECORDS, _PACK
    os.environ[TALLY] = str(notes)
    try:
        yield
    finally:
        packs.RECORDS = before
        del os.environ[TALLY]


def go_on(alone: Alone, name: str, ruin: Callable[[], object] | None = None) -> End:
    """Let the campaign in the folder `name` come to its end; the folder goes.

    ruin: makes that folder as the fault left it; with it, a state that opening turns
    into one which has gone on before has the same end.
    """
    if ruin is None:
        return _ended(alone, name)
    ruin()
    state = _opened(alone.campaign(name))
    if state not in alone.ends:
        shutil.rmtree(alone.folder / name)
        ruin()
        alone.ends[state] = _ended(alone, name)
    shutil.rmtree(alone.folder / name, ignore_errors=True)
    return alone.ends[state]


def trial(fault: str, where: str, alone: Alone, before: Noted, end: End) -> Trial:
    """What the fault cost; before: the labels that were made until then."""
    again = redone(before + end.since, alone.noted, end.labelled)
    return Trial(fault, where, end.wrong, end.twice, again, end.seconds)


def _opened(campaign: Campaign) -> bytes:
    """What the store is once a driver has opened it."""
    store = campaign.store
    with disk(Quick()), contextlib.suppress(AlloopError):  # none is there, or damaged
        Archive.open(store, CODEC, mode="w").release()
    digest = sha256()
    for name, data in sorted(tree_of(store.parent, {}).items()):
        if not name.endswith(f"/{LOCK}"):  # it names the process
            digest.update(repr((name, data)).encode())
    return digest.digest()


def _ended(alone: Alone, name: str) -> End:
    campaign, notes = alone.campaign(name), alone.folder / "tally"
    notes.unlink(missing_ok=True)
    with counted(notes), disk(Quick()):
        seconds = sit(campaign)
    history = campaign.history()
    frames, twice = labelled(history), committed_twice(history)
    wrong = _difference(alone, campaign.store)
    shutil.rmtree(campaign.store.parent)
    return End(frames, twice, tally(notes), seconds, wrong)


def _difference(alone: Alone, store: Path) -> str:
    found, doubtful = made(read_history(store)), next(alone.numbers) % alone.each == 0
    damage = check_columns(store) if doubtful else []
    if found != alone.made:
        return f"{len(found.items() ^ alone.made.items())} entries differ"
    staged = len(list((store / "journal" / "staging").iterdir()))
    return str(damage[0]) if damage else f"{staged} files were left" * bool(staged)
