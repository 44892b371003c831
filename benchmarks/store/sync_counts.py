"""Sync calls a commit, counted by strace, of each store.

    python -m benchmarks.store.sync_counts NAME COMMITS FOLDER

commits to one store, for strace to watch; `benchmarks.store.commits_and_reads` shows
the counts.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store import backends

CALLS = ("fsync", "fdatasync", "msync", "sync", "syncfs", "sync_file_range")


def count_syncs(folder: Path, kinds: Iterable[Any]) -> dict[str, float]:
    """Count syncs a commit by store; return nothing where there is no strace."""
    if shutil.which("strace") is None:
        return {}
    names = [kind.__name__ for kind in kinds]
    return {name: _count_syncs(folder, name) for name in names}


def _count_syncs(folder: Path, name: str) -> float:
    counts, many = (_trace_syncs(folder, name, count) for count in (1, 11))
    return (many - counts) / 10


def _trace_syncs(folder: Path, name: str, count: int) -> int:
    log, place = folder / "strace", folder / f"{name}{count}"
    trace = ["strace", "-f", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
    lines = [
        sys.executable,
        "-m",
        "benchmarks.store.sync_counts",
        name,
        str(count),
        str(place),
    ]
    subprocess.run([*trace, *lines], check=True, capture_output=True)
    return sum(line.count(f" {call}(") for line in log.open() for call in CALLS)


def main() -> None:
    """Some commits to one store."""
    name, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True)
    store = getattr(backends, name)(folder)
    for item in backends.random_items(count, np.random.default_rng(1)):
        store.commit([item])


if __name__ == "__main__":
    main()
