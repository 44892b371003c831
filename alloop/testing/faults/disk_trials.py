"""Trials of crashes, losses of power and full disks, all in one process.

Each trial damages a copy of a campaign and lets it go on, see `recovery`. Where a
function takes `skip`, trials are left out for whose number it is true.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

from alloop.core.errors import AlloopError
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from alloop.loop import events as e
from alloop.testing.faults.comparison import Trial
from alloop.testing.faults.file_changes import (
    LimitedSpace,
    record_states,
    sample_states,
    use_file_system,
    watch_changes,
    write_tree,
)
from alloop.testing.faults.file_systems import UnsyncedFileSystem, VolatileFileSystem
from alloop.testing.faults.recovery import (
    FIRST_TURNS,
    Undisturbed,
    log_labels,
    make_trial,
    recover,
    run_turns,
)
from alloop.testing.faults.toy_campaign import LabelLog, read_label_log

Skip: TypeAlias = Callable[[int], bool]


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

    def observe(most: int) -> RunObserver:
        record = lambda _state, turn: turns.append(turn)  # noqa: E731
        return RunObserver(record, stop=lambda: len(turns) >= most)

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
