"""Campaigns that meet a fault of the disk or a death, all in one process.

Each trial ruins one campaign, lets it go on, and tells how it differs from one that was
left alone. A campaign runs in two sittings, so that a clean stop and what follows it
are among the moments; packs hold few records, so that it seals some.
"""

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from alloop import config
from alloop.campaign import Campaign
from alloop.core.errors import AlloopError
from alloop.loop import events as e
from alloop.loop.history import CODEC, read
from alloop.loop.state import LoopState
from alloop.running import Watch
from alloop.store import packs
from alloop.store.doctor import verify
from benchmarks.crashes import Space, disk, listening, moments, restore, sample
from benchmarks.toys import (
    TALLY,
    Noted,
    Print,
    committed_twice,
    made,
    made_in,
    redone,
    tally,
    write_tiny,
)
from tests.store.conftest import Quick, Volatile

_FIRST = 20  # turns of the first sitting
_PACK = 16  # records


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault and what became of the campaign.

    fault: its kind, where: at what; wrong: what differs from a campaign left alone, ""
    if nothing does; twice: labels committed twice; redone: labels begun again; seconds:
    until the campaign had its next event.
    """

    fault: str
    where: str
    wrong: str = ""
    twice: int = 0
    redone: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Alone:
    """A campaign that was left alone, in whose folder others are ruined; every `each`th
    of these is verified to the byte."""

    folder: Path
    setup: config.Setup
    made: Print
    noted: Noted
    each: int = 1
    numbers: Iterator[int] = field(default_factory=count)

    def campaign(self, name: str) -> Campaign:
        """The same campaign in another folder."""
        return Campaign(replace(self.setup, store=self.folder / name / "toy.zarr"))

    @property
    def notes(self) -> Path:
        """Where labels are noted."""
        return self.folder / "tally"


def left_alone(folder: Path, staleness: int, each: int = 1) -> Alone:
    """Run the campaign undisturbed."""
    setup = config.load(write_tiny(folder / "alone", staleness=staleness))
    with _counted(folder / "tally"), disk(Quick()):
        sit(Campaign(setup), _FIRST)
        sit(Campaign(setup))
    noted = tally(folder / "tally")
    return Alone(folder, setup, made_in(setup.store), noted, each)


def sit(campaign: Campaign, turns: int | None = None) -> float:
    """Run a campaign, or so many turns of it; the seconds until the first."""
    begun, done = time.perf_counter(), list[float]()

    def observe(_state: LoopState, _turn: e.Turn) -> None:
        done.append(time.perf_counter() - begun)

    stop = Watch(observe, stop=lambda: turns is not None and len(done) >= turns)
    campaign.run(watch=stop)
    return done[0] if done else 0.0


@contextlib.contextmanager
def _counted(notes: Path) -> Iterator[None]:
    before, packs.RECORDS = packs.RECORDS, _PACK
    os.environ[TALLY] = str(notes)
    try:
        yield
    finally:
        packs.RECORDS = before
        del os.environ[TALLY]


# --- deaths --------------------------------------------------------------------------


def deaths(alone: Alone, number: int | None = None) -> Iterator[Trial]:
    """Dead before an operation, or in the middle of a write; all, or about so many."""
    campaign, notes = alone.campaign("dying"), alone.folder / "dying.tally"
    campaign.store.parent.mkdir()

    def work() -> None:
        sit(campaign, _FIRST)
        sit(campaign)

    def size() -> int:
        return notes.stat().st_size if notes.exists() else 0

    with _counted(notes), disk(Quick()):
        found = moments(campaign.store.parent, work, size)
    for moment in found if number is None else sample(found, number):
        restore(moment.tree, alone.folder / "again")
        before = _until(notes, moment.seen)
        yield _gone_on("death", moment.deed, alone, "again", before)


def _until(notes: Path, size: int) -> Noted:
    return tally(notes) - tally(notes, size)


def _gone_on(fault: str, where: str, alone: Alone, name: str, before: Noted) -> Trial:
    """Let a ruined campaign go on; before: the labels that were made until then."""
    campaign = alone.campaign(name)
    alone.notes.unlink(missing_ok=True)
    with _counted(alone.notes), disk(Quick()):
        seconds = sit(campaign)
    history = campaign.history()
    again = redone(before + tally(alone.notes), alone.noted, history)
    twice = committed_twice(history)
    wrong = _difference(alone, campaign.store)
    shutil.rmtree(campaign.store.parent)
    return Trial(fault, where, wrong, twice, again, seconds)


def _difference(alone: Alone, store: Path) -> str:
    found, doubtful = made(read(store)), next(alone.numbers) % alone.each == 0
    damage = verify(store, CODEC) if doubtful else []
    if found != alone.made:
        return f"{len(found.items() ^ alone.made.items())} entries differ"
    staged = len(list((store / "journal" / "staging").iterdir()))
    return str(damage[0]) if damage else f"{staged} files were left" * bool(staged)


# --- power ---------------------------------------------------------------------------


def power_losses(alone: Alone, share: float, seed: int) -> Iterator[Trial]:
    """The power fails after an operation: of what was not synced, any may be gone."""
    rng, left = random.Random(seed), list[tuple[str, int, int]]()
    campaign, notes = alone.campaign("powered"), alone.folder / "powered.tally"
    campaign.store.parent.mkdir()
    done = list[e.Turn]()

    def lose() -> None:
        if rng.random() < share:
            size = notes.stat().st_size if notes.exists() else 0
            left.append((f"lost{len(left)}", len(done), size))
            files.top.survive(alone.folder / left[-1][0], rng)

    def watch(turns: int) -> Watch:
        observe = lambda _state, turn: done.append(turn)  # noqa: E731
        return Watch(observe, stop=lambda: len(done) >= turns)

    files = Volatile(campaign.store.parent, lose)
    with _counted(notes), disk(files):
        campaign.run(watch=watch(_FIRST))
        campaign.run(watch=watch(10**6))
    for name, committed, size in left:
        gone = committed - _records(alone.campaign(name).store)
        trial = _gone_on("power", f"{committed}", alone, name, _until(notes, size))
        lost = f"{gone} committed records are gone"
        yield replace(trial, wrong=lost) if gone > 0 else trial


def _records(store: Path) -> int:
    return len(read(store).entries) if store.exists() else 0


# --- a full disk ---------------------------------------------------------------------


def full_disks(alone: Alone, places: Callable[[int], bool]) -> Iterator[Trial]:
    """No room from a write on, for those that `places` chooses; room again after."""
    for left in filter(places, count()):
        notes = alone.folder / "full.tally"
        notes.unlink(missing_ok=True)
        campaign = alone.campaign("full")
        campaign.store.parent.mkdir()
        said = _filled(campaign, left, notes)
        if said is None:
            shutil.rmtree(campaign.store.parent)
            return
        where = f"write {left}"
        trial = _gone_on("full disk", where, alone, "full", tally(notes))
        fine = "space" in said and "\n" not in said
        yield trial if fine else replace(trial, wrong=f"it said: {said}")


def _filled(campaign: Campaign, left: int, notes: Path) -> str | None:
    """What a run says that finds no room after so many writes; None if it ended."""
    space = Space(left)
    with (
        _counted(notes),
        disk(Quick()),
        listening(campaign.store.parent, space.take),
    ):
        try:
            campaign.run()
        except AlloopError as error:
            return str(error)
    return None
