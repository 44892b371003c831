"""Trials of crashes, losses of power and full disks, all in one process.

Each trial damages a copy of a campaign, lets it go on and compares it with one that was
left undisturbed. Where a function takes `skip`, trials are left out for whose number it
is true.

A campaign runs in two parts, so that a clean stop and what follows it are among the
states that a fault can hit; packs hold few records, so that some are sealed. What
opening makes of a damaged store is all that the rest of a run depends on: states that
opening makes equal, to the byte, are continued once.
"""

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

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
from benchmarks.durability.comparison import (
    Reference,
    Trial,
    count_duplicates,
    count_relabelled,
    labelled_frames,
    store_contents,
)
from benchmarks.durability.file_systems import (
    LimitedSpace,
    UnsyncedFileSystem,
    VolatileFileSystem,
    read_tree,
    record_states,
    sample_states,
    use_file_system,
    watch_changes,
    write_tree,
)
from benchmarks.durability.toy_campaign import (
    LABEL_LOG,
    LabelLog,
    read_label_log,
    write_campaign,
)

FIRST_TURNS = 20  # of the first part of a run
_PACK_SIZE = 16  # records
Skip: TypeAlias = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a campaign that was hit.

    labelled: its frames with labels; duplicates: labels committed twice; log: of the
    labels made after the fault; seconds: until its next event; problem: what is wrong.
    """

    labelled: frozenset[str]
    duplicates: int
    log: LabelLog
    seconds: float
    problem: str


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """An undisturbed campaign, in whose folder copies of it are hit by faults.

    Of the copies, every `verify_every`th is verified to the byte; `outcomes` holds
    those that went on, by a digest of the opened store.
    """

    folder: Path
    setup: config.Setup
    reference: Reference
    verify_every: int = 1
    numbers: Iterator[int] = field(default_factory=count)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)

    def copy(self, name: str) -> Campaign:
        """Return the same campaign with its store in the sub-folder `name`."""
        return Campaign(replace(self.setup, store=self.folder / name / "toy.zarr"))


def run_undisturbed(
    folder: Path, staleness: int, verify_every: int = 1, **sections: Any
) -> Undisturbed:
    """Run the toy campaign without any fault.

    sections: those of its file to replace.
    """
    path = write_campaign(folder / "undisturbed", staleness=staleness, **sections)
    setup, log = config.load_campaign(path), folder / "labels.log"
    with log_labels(log), use_file_system(UnsyncedFileSystem()):
        run_turns(Campaign(setup), FIRST_TURNS)
        run_turns(Campaign(setup))
    reference = Reference(store_contents(setup.store), read_label_log(log))
    return Undisturbed(folder, setup, reference, verify_every)


def run_turns(campaign: Campaign, turns: int | None = None) -> float:
    """Run so many turns of a campaign, or all; return the seconds until the first."""
    begun, times = time.perf_counter(), list[float]()

    def observe(_state: LoopState, _turn: e.Turn) -> None:
        times.append(time.perf_counter() - begun)

    stop = RunObserver(observe, stop=lambda: turns is not None and len(times) >= turns)
    campaign.run(observer=stop)
    return times[0] if times else 0.0


@contextlib.contextmanager
def log_labels(log: Path) -> Iterator[None]:
    """Log the toy campaign's labels in a file; packs are small."""
    before, packs.RECORDS = packs.RECORDS, _PACK_SIZE
    os.environ[LABEL_LOG] = str(log)
    try:
        yield
    finally:
        packs.RECORDS = before
        del os.environ[LABEL_LOG]


def recover(
    undisturbed: Undisturbed, name: str, damage: Callable[[], object] | None = None
) -> Outcome:
    """Let the copy in the sub-folder `name` come to its end, and remove it.

    damage: makes that sub-folder as the fault left it; with it, states that opening
    makes equal are continued once.
    """
    if damage is None:
        return _finish(undisturbed, name)
    damage()
    state = _opened_state(undisturbed.copy(name))
    if state not in undisturbed.outcomes:
        shutil.rmtree(undisturbed.folder / name)
        damage()
        undisturbed.outcomes[state] = _finish(undisturbed, name)
    shutil.rmtree(undisturbed.folder / name, ignore_errors=True)
    return undisturbed.outcomes[state]


def make_trial(
    fault: str, place: str, undisturbed: Undisturbed, log: LabelLog, outcome: Outcome
) -> Trial:
    """Return the trial of a fault; log: of the begun made until then."""
    begun, expected = log + outcome.log, undisturbed.reference.log
    relabelled = count_relabelled(begun, expected, outcome.labelled)
    return Trial(
        fault,
        place,
        problem=outcome.problem,
        duplicates=outcome.duplicates,
        relabelled=relabelled,
        seconds=outcome.seconds,
    )


def _opened_state(campaign: Campaign) -> bytes:
    """Return a digest of the store once a driver has opened it."""
    store = campaign.store
    with (
        use_file_system(UnsyncedFileSystem()),
        contextlib.suppress(AlloopError),  # there is none, or it is damaged
    ):
        Archive.open(store, CODEC, mode="w").release()
    digest = sha256()
    for name, data in sorted(read_tree(store.parent).items()):
        if not name.endswith(f"/{LOCK}"):  # it names the process
            digest.update(repr((name, data)).encode())
    return digest.digest()


def _finish(undisturbed: Undisturbed, name: str) -> Outcome:
    campaign, log = undisturbed.copy(name), undisturbed.folder / "labels.log"
    log.unlink(missing_ok=True)
    with log_labels(log), use_file_system(UnsyncedFileSystem()):
        seconds = run_turns(campaign)
    history = campaign.history()
    frames, duplicates = labelled_frames(history), count_duplicates(history)
    problem = _difference(undisturbed, campaign.store)
    shutil.rmtree(campaign.store.parent)
    return Outcome(frames, duplicates, read_label_log(log), seconds, problem)


def _difference(undisturbed: Undisturbed, store: Path) -> str:
    contents, expected = store_contents(store), undisturbed.reference.contents
    verified = next(undisturbed.numbers) % undisturbed.verify_every == 0
    damage = check_columns(store) if verified else []
    if contents != expected:
        return f"{len(contents.items() ^ expected.items())} entries differ"
    staged = len(list((store / "journal" / "staging").iterdir()))
    return str(damage[0]) if damage else f"{staged} files were left" * bool(staged)


# --- trials --------------------------------------------------------------------------


def _never(_number: int) -> bool:
    return False


def crash_trials(
    undisturbed: Undisturbed, number: int | None = None, skip: Skip = _never
) -> Iterator[Trial]:
    """Yield a trial for each death before a file operation or within a write.

    number: about so many of them instead of all.
    """
    campaign, log = undisturbed.copy("crashing"), undisturbed.folder / "crashing.log"
    campaign.store.parent.mkdir()

    def work() -> None:
        run_turns(campaign, FIRST_TURNS)
        run_turns(campaign)

    with log_labels(log), use_file_system(UnsyncedFileSystem()):
        states = record_states(campaign.store.parent, work, partial(_size, log))
    if number is not None:
        states = sample_states(states, number)
    for index, state in enumerate(states):
        if not skip(index):
            damage = partial(write_tree, state.tree, undisturbed.folder / "again")
            outcome = recover(undisturbed, "again", damage)
            before = _log_until(log, state.measured)
            trial = make_trial("crash", state.change, undisturbed, before, outcome)
            yield replace(trial, number=index)


def power_loss_trials(
    undisturbed: Undisturbed, share: float, seed: int, skip: Skip = _never
) -> Iterator[Trial]:
    """Yield a trial for a share of all operations, after which the power fails.

    Of the changes that were not synced by then, any may be gone.
    """
    rng, losses = random.Random(seed), list[tuple[str, int, int]]()
    campaign, log = undisturbed.copy("powered"), undisturbed.folder / "powered.log"
    campaign.store.parent.mkdir()
    turns = list[e.Turn]()

    def lose_power() -> None:
        if rng.random() < share:
            losses.append((f"lost{len(losses)}", len(turns), _size(log)))
            files.top.survive(undisturbed.folder / losses[-1][0], rng)

    def observe(limit: int) -> RunObserver:
        record = lambda _state, turn: turns.append(turn)  # noqa: E731
        return RunObserver(record, stop=lambda: len(turns) >= limit)

    files = VolatileFileSystem(campaign.store.parent, lose_power)
    with log_labels(log), use_file_system(files):
        campaign.run(observer=observe(FIRST_TURNS))
        campaign.run(observer=observe(10**6))
    for index, (name, committed, size) in enumerate(losses):
        if not skip(index):
            missing = committed - _count_records(undisturbed.copy(name).store)
            outcome, before = recover(undisturbed, name), _log_until(log, size)
            trial = make_trial("power", f"{committed}", undisturbed, before, outcome)
            lost = f"{missing} committed records are gone"
            problem = lost if missing > 0 else trial.problem
            yield replace(trial, number=index, problem=problem)


def full_disk_trials(
    undisturbed: Undisturbed, chosen: Callable[[int], bool], skip: Skip = _never
) -> Iterator[Trial]:
    """Yield a trial for each chosen number of changes after which the disk is full.

    The campaign must end with one sentence about it, and goes on once there is room.
    """
    for left in count():
        if not chosen(left) or skip(left):
            continue
        message, log = _fill_disk(undisturbed, left), undisturbed.folder / "full.log"
        if message is None:
            shutil.rmtree(undisturbed.folder / "full")
            return
        before, outcome = read_label_log(log), recover(undisturbed, "full")
        trial = make_trial("full disk", f"write {left}", undisturbed, before, outcome)
        is_sentence = "space" in message and "\n" not in message
        problem = trial.problem if is_sentence else f"the message was: {message}"
        yield replace(trial, number=left, problem=problem)


def _fill_disk(undisturbed: Undisturbed, left: int) -> str | None:
    """Run with room for so many changes; return the error, None if it ended."""
    campaign, log = undisturbed.copy("full"), undisturbed.folder / "full.log"
    folder = campaign.store.parent
    folder.mkdir()
    log.unlink(missing_ok=True)
    with (
        log_labels(log),
        use_file_system(UnsyncedFileSystem()),
        watch_changes(folder, LimitedSpace(left)),
    ):
        try:
            campaign.run()
        except AlloopError as error:
            return str(error)
    return None


def _count_records(store: Path) -> int:
    return len(read_history(store).entries) if store.exists() else 0


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _log_until(log: Path, size: int) -> LabelLog:
    return read_label_log(log) - read_label_log(log, size)
