"""The disk space of a store: what a round needs, and whether it is there."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from alloop.loop.state import LoopState
from alloop.workers.spool import spool_folder

_MEGABYTE = 1e6
_MARGIN = 2.0  # a round may need more than the mean of those before
_TOLD = 0.8  # share of the disk budget that is told


def folder_size(folder: Path) -> int:
    """Return the bytes of all files beneath a folder; 0 where there is none.

    Files that come and go meanwhile are counted or not.
    """
    total, folders = 0, [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes: of the store with its spool, and free where it lies."""

    used: int
    free: int


def disk_space(store: Path) -> DiskSpace:
    """Return the disk space of a store that exists."""
    used = folder_size(store) + folder_size(spool_folder(store))
    return DiskSpace(used, shutil.disk_usage(store).free)


def round_need(state: LoopState, space: DiskSpace) -> float:
    """Return the bytes that a further round may need, by those before it.

    0 before there is any.
    """
    rounds = state.exploration.round
    return _MARGIN * space.used / rounds if rounds else 0.0


def disk_problem(
    space: DiskSpace, need: float, budget: float | None, spare: float
) -> str | None:
    """Return why there is no room for `need` further bytes, in words, or None.

    budget: of the store; spare: to be left free. Both in MB.
    """
    after = (space.used + need) / _MEGABYTE
    if budget is not None and after > budget:
        return (
            f"the store has {space.used / _MEGABYTE:.4g} MB, a round needs about "
            f"{need / _MEGABYTE:.4g}, and `limits: disk` is {budget:.4g} MB"
        )
    if space.free / _MEGABYTE < spare + need / _MEGABYTE:
        return (
            f"{space.free / _MEGABYTE:.4g} MB are free on the disk, a round needs "
            f"about {need / _MEGABYTE:.4g}, and `limits: disk_free` is {spare:.4g} MB"
        )
    return None


def nearly_full(space: DiskSpace, budget: float | None) -> str | None:
    """Return a sentence if most of the disk budget (MB) is used, or None."""
    if budget is None or space.used / _MEGABYTE < _TOLD * budget:
        return None
    return (
        f"the store has {space.used / _MEGABYTE:.4g} of {budget:.4g} MB "
        "(`limits: disk`)"
    )
