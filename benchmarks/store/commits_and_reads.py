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
from benchmarks.common import make_parser, make_table, median_range, show, write_json
from benchmarks.store.backends import (
    AlloopStore,
    AseDatabase,
    Extxyz,
    Hdf5,
    Icechunk,
    LabelledFrame,
    ReplayedStore,
    random_items,
)
from benchmarks.store.sync_counts import count_syncs

KINDS: tuple[Any, ...] = (AlloopStore, ReplayedStore, AseDatabase, Hdf5, Extxyz)
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


def time_call(call: Callable[[], Any]) -> Times:
    """Time a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def sync_times(folder: Path, count: int = 50) -> dict[str, float]:
    """Return median milliseconds to sync a new file of 2 kB, and 2 kB more."""
    files, news, mores = FileSystem(), list[float](), list[float]()
    data = bytes(2000)
    for index in range(count):
        path = folder / f"sync{index}"
        news.append(time_call(partial(files.write, path, data)).wall)
        mores.append(time_call(partial(files.append, path, data, len(data))).wall)
        path.unlink()
    return {"new file": median(news) * 1e3, "appended": median(mores) * 1e3}


def commit_all(
    folder: Path, kinds: Sequence[Any], items: Sequence[LabelledFrame], frames: int
) -> list[Measured]:
    """Commit so many frames a time to each store, in random turns."""
    made = []
    for kind in kinds:
        place = folder / kind.__name__
        place.mkdir(parents=True)
        made.append(Measured(kind(place), place, []))
    shuffled = random.Random(1)
    for begin in range(0, len(items), frames):
        batch = items[begin : begin + frames]
        for entry in shuffled.sample(made, len(made)):
            entry.commits.append(time_call(partial(entry.store.commit, batch)))
    for entry in made:
        entry.store.finish()
    return made


def time_reads(
    stores: Sequence[Any], items: Sequence[LabelledFrame], count: int
) -> list[list[Times]]:
    """Time each store reading all frames, so many times, in turn."""
    for store in stores:
        check_equal(list(store.read()), items)
    rounds = [
        [time_call(partial(_read, entry)) for entry in stores] for _ in range(count)
    ]
    return [list(times) for times in zip(*rounds, strict=True)]


def _read(store: Any) -> list[LabelledFrame]:
    return list(store.read())


def commit_rows(
    folder: Path, frames: int, count: int, syncs: dict[str, float]
) -> list[dict[str, Any]]:
    """Return a row a store, ours first."""
    items = random_items(count * frames, np.random.default_rng(1))
    made = commit_all(folder, KINDS[:1] + KINDS[2:], items, frames)
    if _has_icechunk():
        made += commit_all(folder, [Icechunk], items, frames)
    return [_commit_row(entry, made[0], syncs) for entry in made]


def _commit_row(
    entry: Measured, ours: Measured, syncs: dict[str, float]
) -> dict[str, Any]:
    paths = [path for path in entry.folder.rglob("*") if path.is_file()]
    return {
        "store": entry.store.name,
        "syncs": syncs.get(type(entry.store).__name__),
        "ms": median(x.wall for x in entry.commits) * 1e3,
        "CPU ms": median(x.cpu for x in entry.commits) * 1e3,
        "commit x": _ratio(entry.commits, ours.commits, "wall"),
        "CPU x": _ratio(entry.commits, ours.commits, "cpu"),
        "MB": sum(path.stat().st_size for path in paths) / 1e6,
        "files": len(paths),
    }


def read_rows(folder: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row a store for reading so many frames, ours first."""
    items = random_items(count, np.random.default_rng(1))
    stores = [entry.store for entry in commit_all(folder, _store_kinds(), items, 100)]
    times = time_reads(stores, items, rounds)
    return [
        {
            "frames": count,
            "store": store.name,
            "ms": median(x.wall for x in seconds) * 1e3,
            "CPU ms": median(x.cpu for x in seconds) * 1e3,
            "read x": _ratio(seconds, times[0], "wall", len(seconds)),
            "CPU x": _ratio(seconds, times[0], "cpu", len(seconds)),
        }
        for store, seconds in zip(stores, times, strict=True)
    ]


def _ratio(
    other: Sequence[Times], ours: Sequence[Times], key: str, parts: int = PARTS
) -> str:
    """Return the median (low to high) of the ratios of paired parts of the run."""
    cuts = np.linspace(0, len(ours), min(parts, len(ours)) + 1).astype(int)
    ratios = []
    for begin, end in pairwise(cuts):
        part = slice(begin, end)
        ratios.append(_median_time(other[part], key) / _median_time(ours[part], key))
    made = median_range(ratios)
    return "{median:.2g} ({low:.2g} to {high:.2g})".format(**made)


def _median_time(times: Sequence[Times], key: str) -> float:
    return float(median(getattr(entry, key) for entry in times))


def check_equal(made: Sequence[LabelledFrame], items: Sequence[LabelledFrame]) -> None:
    """Raise ValueError unless the frames came back as they were given."""
    if len(made) != len(items):
        raise ValueError(f"expected {len(items)} frames back, got {len(made)}")
    for a, b in zip(made, items, strict=True):
        close = abs(a.energy - b.energy) < 1e-6 and np.allclose(
            a.forces, b.forces, 0, 1e-6
        )
        if not (close and np.allclose(a.positions, b.positions, 0, 1e-6)):
            raise ValueError("a frame did not come back as it was given")


# --- the command ---------------------------------------------------------------------


def _store_kinds() -> list[Any]:
    return [*KINDS, *([Icechunk] if _has_icechunk() else [])]


def _has_icechunk() -> bool:
    return importlib.util.find_spec("icechunk") is not None


def compare_stores(folder: Path, options: Namespace) -> dict[str, Any]:
    """Measure everything, and show it."""
    counted = count_syncs(folder, _store_kinds())
    count = options.commits or (60 if options.quick else 400)
    figures: dict[str, Any] = {"commits": count, "syncs ms": sync_times(folder)}
    new, more = figures["syncs ms"].values()
    show(
        f"synced in: a new file of 2 kB {new:.2g} ms, 2 kB more {more:.2g} ms (median)"
    )
    show("" if _has_icechunk() else "Icechunk is not installed: pip install icechunk")
    for frames in (1, 5):
        rows = commit_rows(folder / f"commit{frames}", frames, count, counted)
        figures[f"commits of {frames}"] = rows
        show(make_table(f"{count} commits of {frames} frames", rows))
    for size in (200, 1000) if options.quick else (200, 1000, 10_000):
        rows = read_rows(folder / f"read{size}", size, 5 if options.quick else 9)
        figures[f"reading {size}"] = rows
        show(make_table(f"reading {size} frames", rows))
    figures["syncs ms, at the end"] = sync_times(folder)
    new, more = figures["syncs ms, at the end"].values()
    show(f"at the end: a new file of 2 kB {new:.2g} ms, 2 kB more {more:.2g} ms")
    return figures


def main() -> None:
    """Measure, and show."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="which disk")
    parser.add_argument("--commits", type=int, help="how many, of each size")
    options = parser.parse_args()
    folder = options.folder / f"store-benchmark-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        write_json(options.json, compare_stores(folder, options))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
