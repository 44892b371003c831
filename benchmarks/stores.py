"""Our store as `benchmarks.store` uses it, in the manner of `benchmarks.rivals`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.history.reader import CODEC
from alloop.loop import events as e
from alloop.store import columns, schema
from alloop.store.archive import Archive
from benchmarks.rivals import Item

LEVEL = "0" * 16


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
        columns.fill_columns(self.archive, lambda _: tables, self.archive.last())
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


def _turn(item: Item) -> e.Turn:
    frame = Frame(item.numbers, item.positions)
    label = Label(frame.id, LEVEL, item.energy, item.forces, 1.0, {"program": "none"})
    ask = e.LabelFrame(frame, LEVEL, "expensive", "seed", 0)
    return e.Turn(e.Labelled(ask.name, label), (ask,))


def _turns(archive: Archive) -> Iterator[Any]:
    for _, _, record in archive.records():
        yield from record if isinstance(record, tuple) else (record,)


def _tables(frames: Sequence[Frame], labels: Sequence[Label]) -> dict[str, Any]:
    batch, rows = pack_frames(frames), np.arange(len(frames))
    known = {
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
    wanted = ("structures", "labels/expensive")
    return {
        table: {
            key: known.get(key, np.zeros((len(rows), *column.tail)))
            for key, column in schema.table_columns(table).items()
        }
        for table in wanted
    }
