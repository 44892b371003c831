"""Durable commits and reading back: alloop's store beside what else is there.

    python -m benchmarks.store.commits_and_reads [--quick] [--json FILE] [--folder DISK]

The same labelled frames (9 atoms each) are committed one call after the other to every
store in turn, so that all meet the same disk at the same hour; then all frames are read
back, as numbers, positions, energies and forces, and must be those that were given.

    syncs     fsync and fdatasync calls a commit, counted by strace where it is there
    commit x  wall time of a commit over ours: median (lowest to highest) of ten
              paired parts of the run; `CPU x` and `read x` likewise

What a disk needs to sync is told, since it decides: with slow syncs `commit x` goes
towards the ratio of syncs, with fast ones towards `CPU x`. Icechunk takes part where it
is installed, after the others since its threads go on working between commits; it syncs
nothing, so its commits are not durable.
"""

import importlib.util
import os
import random
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from alloop.store.files import FileSystem
from benchmarks.common import arguments, say, spread, table, write_json
from benchmarks.store.backends import (
    Alloop,
    Database,
    Extxyz,
    Hdf5,
    Icechunk,
    Item,
    Replayed,
    items,
)
from benchmarks.store.sync_counts import calls

KINDS: tuple[Any, ...] = (Alloop, Replayed, Database, Hdf5, Extxyz)
PARTS = 10  # of a run: each gives a ratio


class Times(NamedTuple):
    """Seconds of one call, on the wall and of CPU."""

    wall: float
    cpu: float


class Measured(NamedTuple):
    """A store, its folder, and the times of its commits."""

    store: Any
    folder: Path
    commits: list[Times]


def timed(deed: Callable[[], Any]) -> Times:
    """Time a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    deed()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def sync_times(folder: Path, count: int = 50) -> dict[str, float]:
    """Return median milliseconds to sync a new file of 2 kB, and 2 kB more."""
    files, news, mores = FileSystem(), list[float](), list[float]()
    data = bytes(2000)
    for index in range(count):
        path = folder / f"sync{index}"
        news.append(timed(partial(files.write, path, data)).wall)
        mores.append(timed(partial(files.append, path, data, len(data))).wall)
        path.unlink()
    return {"new file": median(news) * 1e3, "appended": median(mores) * 1e3}


def committed(
    folder: Path, kinds: Sequence[Any], given: Sequence[Item], frames: int
) -> list[Measured]:
    """Commit so many frames a time to each store, in random turns."""
    found = []
    for kind in kinds:
        place = folder / kind.__name__
        place.mkdir(parents=True)
        found.append(Measured(kind(place), place, []))
    shuffled = random.Random(1)
    for begin in range(0, len(given), frames):
        batch = given[begin : begin + frames]
        for each in shuffled.sample(found, len(found)):
            each.commits.append(timed(partial(each.store.commit, batch)))
    for each in found:
        each.store.finish()
    return found


def readings(
    stores: Sequence[Any], given: Sequence[Item], count: int
) -> list[list[Times]]:
    """Time each store reading all frames, so many times, in turn."""
    for store in stores:
        same(list(store.read()), given)
    rounds = [[timed(partial(_read, each)) for each in stores] for _ in range(count)]
    return [list(times) for times in zip(*rounds, strict=True)]


def _read(store: Any) -> list[Item]:
    return list(store.read())


def commits(
    folder: Path, frames: int, count: int, calls: dict[str, float]
) -> list[dict[str, Any]]:
    """Return a row a store, ours first."""
    given = items(count * frames, np.random.default_rng(1))
    found = committed(folder, KINDS[:1] + KINDS[2:], given, frames)
    if _icechunk():
        found += committed(folder, [Icechunk], given, frames)
    return [_commit_row(each, found[0], calls) for each in found]


def _commit_row(
    each: Measured, ours: Measured, calls: dict[str, float]
) -> dict[str, Any]:
    paths = [path for path in each.folder.rglob("*") if path.is_file()]
    return {
        "store": each.store.name,
        "syncs": calls.get(type(each.store).__name__),
        "ms": median(x.wall for x in each.commits) * 1e3,
        "CPU ms": median(x.cpu for x in each.commits) * 1e3,
        "commit x": _ratio(each.commits, ours.commits, "wall"),
        "CPU x": _ratio(each.commits, ours.commits, "cpu"),
        "MB": sum(path.stat().st_size for path in paths) / 1e6,
        "files": len(paths),
    }


def reads(folder: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row a store for reading so many frames, ours first."""
    given = items(count, np.random.default_rng(1))
    stores = [each.store for each in committed(folder, _all(), given, 100)]
    times = readings(stores, given, rounds)
    return [
        {
            "frames": count,
            "store": store.name,
            "ms": median(x.wall for x in own) * 1e3,
            "CPU ms": median(x.cpu for x in own) * 1e3,
            "read x": _ratio(own, times[0], "wall", len(own)),
            "CPU x": _ratio(own, times[0], "cpu", len(own)),
        }
        for store, own in zip(stores, times, strict=True)
    ]


def _ratio(
    other: Sequence[Times], ours: Sequence[Times], key: str, parts: int = PARTS
) -> str:
    """Return the median (low to high) of the ratios of paired parts of the run."""
    cuts = np.linspace(0, len(ours), min(parts, len(ours)) + 1).astype(int)
    ratios = []
    for begin, end in pairwise(cuts):
        part = slice(begin, end)
        ratios.append(_middle(other[part], key) / _middle(ours[part], key))
    found = spread(ratios)
    return "{median:.2g} ({low:.2g} to {high:.2g})".format(**found)


def _middle(times: Sequence[Times], key: str) -> float:
    return float(median(getattr(each, key) for each in times))


def same(found: Sequence[Item], given: Sequence[Item]) -> None:
    """Raise ValueError unless the frames came back as they were given."""
    if len(found) != len(given):
        raise ValueError(f"expected {len(given)} frames back, got {len(found)}")
    for a, b in zip(found, given, strict=True):
        close = abs(a.energy - b.energy) < 1e-6 and np.allclose(
            a.forces, b.forces, 0, 1e-6
        )
        if not (close and np.allclose(a.positions, b.positions, 0, 1e-6)):
            raise ValueError("a frame did not come back as it was given")


# --- the command ---------------------------------------------------------------------


def _all() -> list[Any]:
    return [*KINDS, *([Icechunk] if _icechunk() else [])]


def _icechunk() -> bool:
    return importlib.util.find_spec("icechunk") is not None


def compare(folder: Path, chosen: Namespace) -> dict[str, Any]:
    """Measure everything, and show it."""
    counted = calls(folder, _all())
    count = chosen.commits or (60 if chosen.quick else 400)
    figures: dict[str, Any] = {"commits": count, "syncs ms": sync_times(folder)}
    new, more = figures["syncs ms"].values()
    say(f"synced in: a new file of 2 kB {new:.2g} ms, 2 kB more {more:.2g} ms (median)")
    say("" if _icechunk() else "Icechunk is not installed: pip install icechunk")
    for frames in (1, 5):
        rows = commits(folder / f"commit{frames}", frames, count, counted)
        figures[f"commits of {frames}"] = rows
        say(table(f"{count} commits of {frames} frames", rows))
    for size in (200, 1000) if chosen.quick else (200, 1000, 10_000):
        rows = reads(folder / f"read{size}", size, 5 if chosen.quick else 9)
        figures[f"reading {size}"] = rows
        say(table(f"reading {size} frames", rows))
    figures["syncs ms, at the end"] = sync_times(folder)
    new, more = figures["syncs ms, at the end"].values()
    say(f"at the end: a new file of 2 kB {new:.2g} ms, 2 kB more {more:.2g} ms")
    return figures


def main() -> None:
    """Measure, and show."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="which disk")
    parser.add_argument("--commits", type=int, help="how many, of each size")
    chosen = parser.parse_args()
    folder = chosen.folder / f"store-benchmark-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        write_json(chosen.json, compare(folder, chosen))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
