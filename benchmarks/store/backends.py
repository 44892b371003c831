"""Stores with the same methods: alloop's, ASE's, extended XYZ, HDF5, Icechunk.

    commit(items)   the frames are on the disk on return (not in Icechunk's: see there)
    finish()        no commit follows
    read()          all frames, in order

Each is used as its manual says. SQLite syncs as ASE leaves it: `synchronous` FULL and a
rollback journal, deleted at each commit.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import h5py  # type: ignore[import-untyped]
import numpy as np
import zarr
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.history.journal_codec import CLASSES, UPCASTERS
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.store import columns, schema
from alloop.store.archive import Archive
from alloop.store.codec import Codec

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
LEVEL = "0" * 16
_CODEC = Codec(CLASSES, UPCASTERS)  # its records are several turns too


class LabelledFrame(NamedTuple):
    """A labelled frame: numbers (n,), positions (n, 3), energy, forces (n, 3)."""

    numbers: Any
    positions: Any
    energy: float
    forces: Any


def random_items(count: int, rng: np.random.Generator) -> list[LabelledFrame]:
    """Random labelled frames of nine atoms."""
    shape = (count, len(NUMBERS), 3)
    positions = np.round(rng.normal(size=shape), 8) + 0.0
    forces, energies = rng.normal(size=shape), rng.normal(size=count)
    parts = zip(positions, energies, forces, strict=True)
    return [LabelledFrame(NUMBERS, x, float(energy), f) for x, energy, f in parts]


class AlloopStore:
    """The journal; all frames are read from the columns, or by replaying it."""

    name = "alloop"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.zarr"
        self.archive = Archive.create(self.path, attrs={}, codec=_CODEC)

    def commit(self, batch: Sequence[LabelledFrame]) -> None:
        turns = tuple(_turn(item) for item in batch)
        self.archive.append(turns if len(turns) > 1 else turns[0])

    def finish(self) -> None:
        turns = list(_turns(self.archive))
        frames = [turn.commands[0].frame for turn in turns]
        labels = [turn.event.label for turn in turns]
        tables = _tables(frames, labels)
        columns.fill_columns(self.archive, lambda _: tables, self.archive.last())
        self.archive.close()

    def read(self) -> Iterator[LabelledFrame]:
        root: Any = zarr.open_group(self.path, mode="r", zarr_format=3)
        structures, labels = root["structures"], root["labels/expensive"]
        cuts = structures["offsets"][1:-1]
        parts = (np.split(structures[key][:], cuts) for key in ("numbers", "positions"))
        energies, forces = labels["energy"][:].tolist(), labels["forces"][:]
        return map(LabelledFrame, *parts, energies, np.split(forces, cuts))


class ReplayedStore(AlloopStore):
    """The same store, read without its columns."""

    name = "alloop, no columns"

    def finish(self) -> None:
        self.archive.close()

    def read(self) -> Iterator[LabelledFrame]:
        with Archive.open(self.path, _CODEC) as archive:
            for turn in _turns(archive):
                frame, label = turn.commands[0].frame, turn.event.label
                yield LabelledFrame(
                    frame.numbers, frame.positions, label.energy, label.forces
                )


class AseDatabase:
    """ASE's SQLite database, a transaction a commit."""

    name = "ASE database"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.db"
        self.db = connect(self.path)

    def commit(self, batch: Sequence[LabelledFrame]) -> None:
        with self.db:
            for item in batch:
                self.db.write(_to_atoms(item))

    def finish(self) -> None:
        """Nothing."""

    def read(self) -> Iterator[LabelledFrame]:
        return (_to_item(row.toatoms()) for row in connect(self.path).select())


class Extxyz:
    """Extended XYZ, appended to and synced."""

    name = "extxyz, fsync"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.xyz"

    def commit(self, batch: Sequence[LabelledFrame]) -> None:
        with self.path.open("a") as file:
            ase.io.write(file, [_to_atoms(item) for item in batch], format="extxyz")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Nothing."""

    def read(self) -> Iterator[LabelledFrame]:
        return map(_to_item, ase.io.iread(self.path, ":"))


class FlatArrays:
    """Flat arrays with offsets, grown by `_append`; what HDF5 and Icechunk share."""

    path: Path

    def _open(self) -> Any: ...

    def read(self) -> Iterator[LabelledFrame]:
        group = self._open()
        cuts = group["ends"][:-1]
        parts = (np.split(group[k][:], cuts) for k in ("numbers", "positions"))
        return map(
            LabelledFrame,
            *parts,
            group["energy"][:].tolist(),
            np.split(group["forces"][:], cuts),
        )


class Hdf5(FlatArrays):
    """HDF5: resized, written, flushed, synced."""

    name = "HDF5, fsync"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.h5"
        self.file = h5py.File(self.path, "w")
        for key, (shape, dtype) in _FLAT.items():
            self.file.create_dataset(
                key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1024, *shape)
            )

    def commit(self, batch: Sequence[LabelledFrame]) -> None:
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


class Icechunk(FlatArrays):
    """Icechunk on a local folder, a commit a commit; it syncs nothing."""

    name = "Icechunk, no sync"

    def __init__(self, folder: Path) -> None:
        icechunk = importlib.import_module("icechunk")
        icechunk.set_logs_filter("error")  # it warns of several writers; here is one
        storage = icechunk.local_filesystem_storage(str(folder / "s.icechunk"))
        self.repo = icechunk.Repository.create(storage)
        session = self.repo.writable_session("main")
        group = zarr.create_group(session.store)
        for key, (shape, dtype) in _FLAT.items():
            group.create_array(
                key, shape=(0, *shape), dtype=dtype, chunks=(1024, *shape)
            )
        session.commit("made")

    def commit(self, batch: Sequence[LabelledFrame]) -> None:
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


def _flat(batch: Sequence[LabelledFrame], atoms: int) -> dict[str, Any]:
    return {
        "numbers": np.concatenate([item.numbers for item in batch]),
        "positions": np.concatenate([item.positions for item in batch]),
        "ends": atoms + np.cumsum([len(item.numbers) for item in batch]),
        "energy": np.array([item.energy for item in batch]),
        "forces": np.concatenate([item.forces for item in batch]),
    }


def _to_atoms(item: LabelledFrame) -> Atoms:
    atoms = Atoms(item.numbers, item.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=item.energy, forces=item.forces)
    return atoms


def _to_item(atoms: Atoms) -> LabelledFrame:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    return LabelledFrame(atoms.numbers, atoms.positions, energy, forces)


def _turn(item: LabelledFrame) -> e.Turn:
    frame = Frame(item.numbers, item.positions)
    label = Label(
        frame.id,
        LEVEL,
        item.energy,
        item.forces,
        details={"program": "none"},
        cpu_seconds=1.0,
    )
    ask = LabelFrame(frame, LEVEL, "expensive", "seed", 0)
    return e.Turn(e.Labelled(ask.name, label), (ask,))


def _turns(archive: Archive) -> Iterator[Any]:
    for _, _, record in archive.records():
        yield from record if isinstance(record, tuple) else (record,)


def _tables(frames: Sequence[Frame], labels: Sequence[Label]) -> dict[str, Any]:
    batch, rows = pack_frames(frames), np.arange(len(frames))
    arrays = {
        "id": schema.id_digits(frame.id for frame in frames),
        "offsets": batch.offsets,
        "numbers": batch.numbers,
        "positions": batch.positions,
        "cell": batch.cells,
        "pbc": batch.pbc,
        "structure": rows,
        "energy": np.array([label.energy for label in labels]),
        "forces": np.concatenate([label.forces for label in labels]),
    }
    names = ("structures", "labels/expensive")
    return {
        table: {
            key: arrays.get(key, np.zeros((len(rows), *column.tail)))
            for key, column in schema.table_columns(table).items()
        }
        for table in names
    }
