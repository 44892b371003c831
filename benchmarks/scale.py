"""How a store and its driver behave as a campaign grows, with labels that cost nothing.

    python -m benchmarks.scale [--quick] [--json FILE] [--records N ...] [--folder DISK]

plays a synthetic campaign of N records shaped like those of a real one (a label each;
every tenth is an exploration with a hundred candidates, every thousandth a training, so
that 100000 records are a million frames), commits each and learns from it as a driver
does, compacts every thousand records, and measures what that costs and what opening
costs afterwards. What is linear in the data has a flat cost a record. Times are of the
processor; files are written without waiting for the disk, see `benchmarks.store`.

    commit   append a record                  learn   state, ledger and rows of columns
    columns  fill them                        last    fill them for the last time
    folds    keep them, each larger by 10 %   fold    the last one
    open     for writing, with the fold       full    the same by replay of all records
    config   what `resume` asks first         MB      on the disk; fold MB of it
"""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alloop.core.frame import Frame
from alloop.core.records import Candidate, Detail, Label, Walker
from alloop.loop import events as e
from alloop.loop import fold
from alloop.loop.fold import Known, beginning, keep
from alloop.loop.history import CODEC
from alloop.loop.keeping import Keeper
from alloop.loop.learning import learn
from alloop.store.archive import Archive
from alloop.store.files import Files
from benchmarks.common import arguments, say, table, write_json

LEVEL = "0" * 16
NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
CANDIDATES = 100  # in an exploration: ten frames a record
EXPLORE, TRAIN = 10, 1000  # one of so many records
STEP = 1000  # records between two compactions
_T = TypeVar("_T")


class Unsynced(Files):
    """A file system call for each, none of which waits for the disk."""

    def write(self, path: Path, data: bytes) -> None:
        """A new file with these bytes."""
        with path.open("xb") as file:
            file.write(data)

    def sync(self, folder: Path) -> None:
        """Nothing."""


def turns(begin: int, end: int) -> Iterator[e.Turn]:
    """Turns number `begin` to `end`, each a function of its number: the answer to what
    the one before asked for, and the next question."""
    for seq in range(begin, end):
        event = _answer(_asked(seq), seq) if seq else _opened()
        yield e.Turn(event, (_asked(seq + 1),))


def _opened() -> e.Opened:
    return e.Opened(7, {"cheap": LEVEL}, (_frame(np.random.default_rng(0)),))


def _asked(seq: int) -> e.Command:
    rng = np.random.default_rng(seq)
    if seq % TRAIN == TRAIN - 1:
        return e.Train(1 + seq // TRAIN, (), (), ())
    if seq % EXPLORE == EXPLORE - 1:
        where, model = _frame(rng), "0" * 32
        rest = np.zeros((len(NUMBERS), 3))
        crew = tuple(Walker(i, 0, where, rest, seq) for i in range(8))
        number = seq // TRAIN
        return e.Explore(seq, 0, 0, number, model, crew, 100, CANDIDATES, 1)
    why = "surprise 12.3 above 4.5"
    return e.LabelFrame(_frame(rng), LEVEL, "cheap", "flagged", 0, why)


def _frame(rng: np.random.Generator) -> Frame:
    return Frame(NUMBERS, rng.normal(size=(len(NUMBERS), 3)))


def _answer(asked: e.Command, seq: int) -> e.Event:
    rng = np.random.default_rng((1, seq))
    match asked:
        case e.Train(name=name, generation=number):
            landmarks = rng.normal(size=(200, len(_D)))
            return e.Trained(name, number, f"{number:032x}", 4.5, None, landmarks)
        case e.Explore(name=name, walkers=walkers):
            found = tuple(_candidate(rng, seq) for _ in range(CANDIDATES))
            return e.Explored(name, walkers, found[1:], found[:1], 1000)
        case e.LabelFrame(name=name, frame=frame):
            forces = rng.normal(size=(len(NUMBERS), 3))
            label = Label(frame.id, LEVEL, -4000.0, forces, 1.0, dict(_DETAILS))
            return e.Labelled(name, label, e.Timing(1.0, 2.0, 1.0, "w"))
    raise AssertionError(asked)


def _candidate(rng: np.random.Generator, seq: int) -> Candidate:
    forces = rng.normal(size=(len(NUMBERS), 3))
    return Candidate(_frame(rng), 0, 3, seq, 12.5, -4000.0, forces, _D)


_D = np.zeros(64)
_DETAILS: dict[str, Detail] = {
    "program": "pyscf 2.14",
    "rung": "default",
    "cycles": 9,
    "gap": 12.5,
}


def cpu(deed: Callable[[], _T]) -> tuple[float, _T]:
    """CPU seconds of a deed, and what came of it."""
    begin = time.process_time()
    done = deed()
    return time.process_time() - begin, done


def _append(archive: Archive, made: Sequence[e.Turn]) -> None:
    for turn in made:
        archive.append(turn)


def _learn(keeper: Keeper, made: Sequence[e.Turn]) -> None:
    for turn in made:
        known = keeper.known
        known.ledger.add(turn)
        keeper.note(turn, learn(known.state, turn.event, turn.commands))


def grow(path: Path, count: int) -> dict[str, float]:
    """Play the campaign; CPU seconds of the parts."""
    spent = dict.fromkeys(("commit", "learn", "columns", "folds", "last"), 0.0)
    attrs = {"config": "name: scale"}
    with Archive.create(path, attrs=attrs, codec=CODEC, files=Unsynced()) as archive:
        keeper = Keeper(archive)
        for begin in range(0, count, STEP):
            made = list(turns(begin, min(begin + STEP, count)))
            spent["commit"] += cpu(partial(_append, archive, made))[0]
            spent["learn"] += cpu(partial(_learn, keeper, made))[0]
            spent["last"] = cpu(keeper.fill)[0]
            spent["columns"] += spent["last"]
            spent["folds"] += cpu(keeper.compact)[0]
        spent["fold"] = cpu(lambda: keep(archive, keeper.known))[0]
    return spent


def _open(path: Path) -> Known:
    with Archive.open(path, CODEC, "w", files=Unsynced()) as archive:
        return Keeper(archive).known


def measure(folder: Path, count: int) -> dict[str, Any]:
    """The figures of a store of `count` records."""
    path = folder / f"{count}.zarr"
    spent = grow(path, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [each for each in path.rglob("*") if each.is_file()]
    size = sum(each.stat().st_size for each in files)
    kept = path / "journal" / "folds" / fold.NAME
    config, _ = cpu(lambda: beginning(path))
    opened, _ = cpu(lambda: _open(path))
    folded = kept.stat().st_size
    kept.unlink()
    full, _ = cpu(lambda: _open(path))
    found = {
        "records": count,
        "commit us": spent["commit"] / count * 1e6,
        "learn us": spent["learn"] / count * 1e6,
        "columns us": spent["columns"] / count * 1e6,
        "folds us": spent["folds"] / count * 1e6,
        "last ms": spent["last"] * 1e3,
        "fold ms": spent["fold"] * 1e3,
        "config ms": config * 1e3,
        "open ms": opened * 1e3,
        "full ms": full * 1e3,
        "files": len(files),
        "MB": size / 1e6,
        "fold MB": folded / 1e6,
        "peak MB": peak / 1e3,
    }
    shutil.rmtree(path)
    return found


def main() -> None:
    """Measure, and show."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--records", type=int, nargs="+", help="sizes, one after another"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="which disk")
    chosen = parser.parse_args()
    sizes = chosen.records or ([1000, 10000] if chosen.quick else [1000, 10000, 100000])
    folder = chosen.folder / f"scale-benchmark-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        found = []
        for count in sizes:
            found.append(measure(folder, count))
            write_json(chosen.json, {"sizes": found})
    finally:
        shutil.rmtree(folder)
    say(table("us: CPU time a record; ms: CPU time of the whole", found))


if __name__ == "__main__":
    main()
