"""Durable commits and reading back: alloop's store beside what else is there.

    python -m benchmarks.store [--quick] [--json FILE] [--folder DISK]

The same labelled frames (9 atoms each) are committed one call after the other to every
store in turn, so that all meet the same disk at the same hour; then all frames are read
back, as numbers, positions, energies and forces, and must be those that were given. The
ratios depend on how long the disk takes to sync a file, which is told. Icechunk takes
part where it is installed; it syncs nothing, so its commits are not durable.
"""

import importlib
import importlib.util
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import ase.io
import h5py  # type: ignore[import-untyped]
import numpy as np
import zarr
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from alloop.core.batch import pack
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.history import CODEC
from alloop.store import columns, schema
from alloop.store.archive import Archive
from alloop.store.files import Files
from benchmarks.common import arguments, say, table, write_json

LEVEL = "0" * 16
NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])


class Item(NamedTuple):
    """A labelled frame: numbers (n,), positions (n, 3), energy, forces (n, 3)."""

    numbers: Any
    positions: Any
    energy: float
    forces: Any


def items(count: int, rng: np.random.Generator) -> list[Item]:
    """Random labelled frames of nine atoms."""
    shape = (count, len(NUMBERS), 3)
    positions = np.round(rng.normal(size=shape), 8) + 0.0
    forces, energies = rng.normal(size=shape), rng.normal(size=count)
    parts = zip(positions, energies, forces, strict=True)
    return [Item(NUMBERS, x, float(energy), f) for x, energy, f in parts]


class Alloop:
    """The journal; all frames are read from the columns, or by replaying it."""

    name = "alloop"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.zarr"
        self.archive = Archive.create(self.path, attrs={}, codec=CODEC)

    def commit(self, batch: Sequence[Item]) -> None:
        turns = tuple(_turn(item) for item in batch)
        self.archive.append(turns if len(turns) > 1 else turns[0])

    def finish(self) -> None:
        turns = list(_turns(self.archive))
        frames = [turn.commands[0].frame for turn in turns]
        labels = [turn.event.label for turn in turns]
        tables = _tables(frames, labels)
        columns.fill(self.archive, lambda _: tables, self.archive.last())
        self.archive.close()

    def read(self) -> Iterator[Item]:
        root: Any = zarr.open_group(self.path, mode="r")
        structures, labels = root["structures"], root["labels/expensive"]
        cuts = structures["offsets"][1:-1]
        parts = (np.split(structures[key][:], cuts) for key in ("numbers", "positions"))
        energies, forces = labels["energy"][:].tolist(), labels["forces"][:]
        return map(Item, *parts, energies, np.split(forces, cuts))


class Replayed(Alloop):
    """The same store, read without its columns."""

    name = "alloop, no columns"

    def finish(self) -> None:
        self.archive.close()

    def read(self) -> Iterator[Item]:
        with Archive.open(self.path, CODEC) as archive:
            for turn in _turns(archive):
                frame, label = turn.commands[0].frame, turn.event.label
                yield Item(frame.numbers, frame.positions, label.energy, label.forces)


class Database:
    """ASE's SQLite database, a transaction a commit."""

    name = "ASE database"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.db"
        self.db = connect(self.path)

    def commit(self, batch: Sequence[Item]) -> None:
        with self.db:
            for item in batch:
                self.db.write(_atoms(item))

    def finish(self) -> None:
        """Nothing."""

    def read(self) -> Iterator[Item]:
        return (_item(row.toatoms()) for row in connect(self.path).select())


class Extxyz:
    """Extended XYZ, appended to and synced."""

    name = "extxyz, fsync"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.xyz"

    def commit(self, batch: Sequence[Item]) -> None:
        with self.path.open("a") as file:
            ase.io.write(file, [_atoms(item) for item in batch], format="extxyz")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Nothing."""

    def read(self) -> Iterator[Item]:
        return map(_item, ase.io.iread(self.path, ":"))


class Flat:
    """Flat arrays with offsets, grown by `_append`; what HDF5 and Icechunk share."""

    path: Path

    def _open(self) -> Any: ...

    def read(self) -> Iterator[Item]:
        group = self._open()
        cuts = group["ends"][:-1]
        parts = (np.split(group[k][:], cuts) for k in ("numbers", "positions"))
        return map(
            Item,
            *parts,
            group["energy"][:].tolist(),
            np.split(group["forces"][:], cuts),
        )


class Hdf5(Flat):
    """HDF5: resized, written, flushed, synced."""

    name = "HDF5, fsync"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.h5"
        self.file = h5py.File(self.path, "w")
        for key, (shape, dtype) in _FLAT.items():
            self.file.create_dataset(
                key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1024, *shape)
            )

    def commit(self, batch: Sequence[Item]) -> None:
        for key, values in _flat(batch, len(self.file["numbers"])).items():
            data = self.file[key]
            data.resize(len(data) + len(values), axis=0)
            data[-len(values) :] = values
        self.file.flush()
        os.fsync(self.file.id.get_vfd_handle())

    def finish(self) -> None:
        self.file.close()

    def _open(self) -> Any:
        return h5py.File(self.path, "r")


class Icechunk(Flat):
    """Icechunk on a local folder, a commit a commit; it syncs nothing."""

    name = "Icechunk, no sync"

    def __init__(self, folder: Path) -> None:
        icechunk = importlib.import_module("icechunk")
        storage = icechunk.local_filesystem_storage(str(folder / "s.icechunk"))
        self.repo = icechunk.Repository.create(storage)
        session = self.repo.writable_session("main")
        group = zarr.create_group(session.store)
        for key, (shape, dtype) in _FLAT.items():
            group.create_array(
                key, shape=(0, *shape), dtype=dtype, chunks=(1024, *shape)
            )
        session.commit("made")

    def commit(self, batch: Sequence[Item]) -> None:
        session = self.repo.writable_session("main")
        group: Any = zarr.open_group(session.store)
        for key, values in _flat(batch, group["numbers"].shape[0]).items():
            group[key].append(values)
        session.commit("more")

    def finish(self) -> None:
        """Nothing."""

    def _open(self) -> Any:
        return zarr.open_group(self.repo.readonly_session("main").store, mode="r")


_FLAT = {
    "numbers": ((), "u1"),
    "positions": ((3,), "f8"),
    "ends": ((), "i8"),
    "energy": ((), "f8"),
    "forces": ((3,), "f8"),
}


def _flat(batch: Sequence[Item], atoms: int) -> dict[str, Any]:
    return {
        "numbers": np.concatenate([item.numbers for item in batch]),
        "positions": np.concatenate([item.positions for item in batch]),
        "ends": atoms + np.cumsum([len(item.numbers) for item in batch]),
        "energy": np.array([item.energy for item in batch]),
        "forces": np.concatenate([item.forces for item in batch]),
    }


def _turn(item: Item) -> e.Turn:
    frame = Frame(item.numbers, item.positions)
    label = Label(frame.id, LEVEL, item.energy, item.forces, 1.0, {"program": "none"})
    ask = e.LabelFrame(frame, LEVEL, "expensive", "seed", 0)
    return e.Turn(e.Labelled(ask.name, label), (ask,))


def _turns(archive: Archive) -> Iterator[Any]:
    for _, _, record in archive.records():
        yield from record if isinstance(record, tuple) else (record,)


def _tables(frames: Sequence[Frame], labels: Sequence[Label]) -> dict[str, Any]:
    batch, rows = pack(frames), np.arange(len(frames))
    known = {
        "id": schema.digits(frame.id for frame in frames),
        "offsets": batch.offsets,
        "numbers": batch.numbers,
        "positions": batch.positions,
        "cell": batch.cells,
        "pbc": batch.pbc,
        "structure": rows,
        "energy": np.array([label.energy for label in labels]),
        "forces": np.concatenate([label.forces for label in labels]),
    }
    wanted = ("structures", "labels/expensive")
    return {
        table: {
            key: known.get(key, np.zeros((len(rows), *column.tail)))
            for key, column in schema.columns(table).items()
        }
        for table in wanted
    }


def _atoms(item: Item) -> Atoms:
    atoms = Atoms(item.numbers, item.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=item.energy, forces=item.forces)
    return atoms


def _item(atoms: Atoms) -> Item:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    return Item(atoms.numbers, atoms.positions, energy, forces)


def sync_time(folder: Path, count: int = 50) -> float:
    """Median seconds that a new, small file takes to be on the disk."""
    files, times = Files(), []
    for index in range(count):
        path, begin = folder / f"sync{index}", time.perf_counter()
        files.write(path, bytes(1000))
        times.append(time.perf_counter() - begin)
        path.unlink()
    return median(times)


def timed(deed: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds on the wall and of CPU that a deed takes, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = deed()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def measure(
    folder: Path, commits: int, frames: int, reads: int
) -> list[dict[str, Any]]:
    """One row a store: commits of so many frames, taken in turn.

    Icechunk comes after the others, since its threads go on working between commits.
    """
    given = items(commits * frames, np.random.default_rng(1))
    kinds: list[Any] = [Alloop, Replayed, Database, Hdf5, Extxyz]
    rows = _rows(folder, kinds, given, frames, reads)
    if importlib.util.find_spec("icechunk"):
        rows += _rows(folder, [Icechunk], given, frames, reads)
    return [_compared(row, rows) for row in rows]


def _rows(
    folder: Path, kinds: Sequence[Any], given: Sequence[Item], frames: int, reads: int
) -> list[dict[str, Any]]:
    stores = []
    for kind in kinds:
        place = folder / kind.__name__
        place.mkdir(parents=True)
        stores.append((kind(place), place, list[tuple[float, float, Any]]()))
    shuffled = random.Random(1)
    for begin in range(0, len(given), frames):
        batch = given[begin : begin + frames]
        for store, _, times in shuffled.sample(stores, len(stores)):
            times.append(timed(partial(store.commit, batch)))
    return [_row(store, place, times, given, reads) for store, place, times in stores]


def _row(
    store: Any, place: Path, times: Sequence[Any], given: Sequence[Item], reads: int
) -> dict[str, Any]:
    store.finish()
    found = [timed(lambda: list(store.read())) for _ in range(reads)]
    _same(found[0][2], given)
    paths = [path for path in place.rglob("*") if path.is_file()]
    return {
        "store": store.name,
        "commit ms": median(wall * 1e3 for wall, _, _ in times),
        "CPU ms": median(cpu * 1e3 for _, cpu, _ in times),
        "read ms": median(cpu * 1e3 for _, cpu, _ in found),
        "MB": sum(path.stat().st_size for path in paths) / 1e6,
        "files": len(paths),
    }


def _compared(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ours = rows[0]
    ratios = {
        "commit x": row["commit ms"] / ours["commit ms"],
        "CPU x": row["CPU ms"] / ours["CPU ms"],
        "read x": row["read ms"] / ours["read ms"],
    }
    return {**row, **ratios}


def _same(found: Sequence[Item], given: Sequence[Item]) -> None:
    if len(found) != len(given):
        raise ValueError(f"expected {len(given)} frames back, got {len(found)}")
    for a, b in zip(found, given, strict=True):
        close = abs(a.energy - b.energy) < 1e-6 and np.allclose(
            a.forces, b.forces, 0, 1e-6
        )
        if not (close and np.allclose(a.positions, b.positions, 0, 1e-6)):
            raise ValueError("a frame did not come back as it was given")


def main() -> None:
    """Measure, and show."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="which disk")
    parser.add_argument("--commits", type=int, help="how many, of each size")
    chosen = parser.parse_args()
    commits = chosen.commits or (60 if chosen.quick else 400)
    folder = chosen.folder / f"store-benchmark-{os.getpid()}"
    folder.mkdir(parents=True)
    figures: dict[str, Any] = {"commits": commits}
    try:
        figures["fsync ms"] = sync_time(folder) * 1e3
        say(f"a new file of 1 kB is synced in {figures['fsync ms']:.2g} ms (median)\n")
        for frames in (1, 5):
            rows = measure(folder / str(frames), commits, frames, 3)
            figures[f"{frames} a commit"] = rows
            say(
                table(
                    f"{commits} commits of {frames} frames; reading is CPU time", rows
                )
            )
    finally:
        shutil.rmtree(folder)
    write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
