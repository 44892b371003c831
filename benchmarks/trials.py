"""Campaigns that meet a fault of the disk or a death, all in one process.

Each trial ruins one campaign and lets it go on, see `benchmarks.ruins`. `done` tells
which numbers need not be tried again.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from alloop.core.errors import AlloopError
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from alloop.loop import events as e
from benchmarks.crashes import Space, disk, listening, moments, restore, sample
from benchmarks.ruins import FIRST, Alone, Trial, counted, go_on, sit, trial
from benchmarks.toys import Noted, tally
from tests.store.conftest import Quick, Volatile


def _none(_number: int) -> bool:
    return False


# --- deaths --------------------------------------------------------------------------


def deaths(
    alone: Alone, number: int | None = None, done: Callable[[int], bool] = _none
) -> Iterator[Trial]:
    """Dead before an operation, or in the middle of a write; all, or about so many."""
    campaign, notes = alone.campaign("dying"), alone.folder / "dying.tally"
    campaign.store.parent.mkdir()

    def work() -> None:
        sit(campaign, FIRST)
        sit(campaign)

    with counted(notes), disk(Quick()):
        found = moments(campaign.store.parent, work, partial(_size, notes))
    for index, moment in enumerate(found if number is None else sample(found, number)):
        if not done(index):
            ruin = partial(restore, moment.tree, alone.folder / "again")
            end = go_on(alone, "again", ruin)
            before = _until(notes, moment.seen)
            made = trial("death", moment.deed, alone, before, end)
            yield replace(made, number=index)


def _size(notes: Path) -> int:
    return notes.stat().st_size if notes.exists() else 0


def _until(notes: Path, size: int) -> Noted:
    return tally(notes) - tally(notes, size)


# --- power ---------------------------------------------------------------------------


def power_losses(
    alone: Alone, share: float, seed: int, done: Callable[[int], bool] = _none
) -> Iterator[Trial]:
    """The power fails after an operation: of what was not synced, any may be gone."""
    rng, left = random.Random(seed), list[tuple[str, int, int]]()
    campaign, notes = alone.campaign("powered"), alone.folder / "powered.tally"
    campaign.store.parent.mkdir()
    turns = list[e.Turn]()

    def lose() -> None:
        if rng.random() < share:
            left.append((f"lost{len(left)}", len(turns), _size(notes)))
            files.top.survive(alone.folder / left[-1][0], rng)

    def watch(most: int) -> RunObserver:
        observe = lambda _state, turn: turns.append(turn)  # noqa: E731
        return RunObserver(observe, stop=lambda: len(turns) >= most)

    files = Volatile(campaign.store.parent, lose)
    with counted(notes), disk(files):
        campaign.run(watch=watch(FIRST))
        campaign.run(watch=watch(10**6))
    for index, (name, committed, size) in enumerate(left):
        if not done(index):
            gone = committed - _records(alone.campaign(name).store)
            end = go_on(alone, name)
            made = trial("power", f"{committed}", alone, _until(notes, size), end)
            lost = f"{gone} committed records are gone" if gone > 0 else made.wrong
            yield replace(made, number=index, wrong=lost)


def _records(store: Path) -> int:
    return len(read_history(store).entries) if store.exists() else 0


# --- a full disk ---------------------------------------------------------------------


def full_disks(
    alone: Alone, places: Callable[[int], bool], done: Callable[[int], bool] = _none
) -> Iterator[Trial]:
    """No room from a write on, for those that `places` chooses; room again after."""
    for left in count():
        if not places(left) or done(left):
            continue
        said, notes = _filled(alone, left), alone.folder / "full.tally"
        if said is None:
            shutil.rmtree(alone.folder / "full")
            return
        before, end = tally(notes), go_on(alone, "full")
        made = trial("full disk", f"write {left}", alone, before, end)
        fine = "space" in said and "\n" not in said
        wrong = made.wrong if fine else f"it said: {said}"
        yield replace(made, number=left, wrong=wrong)


def _filled(alone: Alone, left: int) -> str | None:
    """What a run says that finds no room after so many writes; None if it ended."""
    campaign, notes, space = alone.campaign("full"), "full.tally", Space(left)
    folder = campaign.store.parent
    folder.mkdir()
    (alone.folder / notes).unlink(missing_ok=True)
    with (
        counted(alone.folder / notes),
        disk(Quick()),
        listening(folder, space.take),
    ):
        try:
            campaign.run()
        except AlloopError as error:
            return str(error)
    return None
