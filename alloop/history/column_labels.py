"""Labels read from the columns of a store, without its journal.

Used where the journal has lost labels that the columns still hold. Every chunk has a
checksum and a frame's id is a hash of its content, so rows that can be read are as they
were written; rows that cannot be read are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core import doubts
from alloop.core.frame import Frame
from alloop.core.levels import LevelId
from alloop.core.records import Detail, Failure, Label, Unlabelled
from alloop.loop import events as e
from alloop.store.chunks import chunk_name
from alloop.store.record import Array
from alloop.store.schema import (
    ATOM,
    BOUND,
    FAILURES,
    FIDELITIES,
    PURPOSES,
    RUNGS,
    Column,
    table_columns,
)

_NUMBERS = ("peak_mb", "gap", "s2", "t1", "internal", "external")
_PLACES = ("id", "offsets", "numbers", "positions", "cell", "pbc", "charge", "spin")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnLabel:
    """A row of `labels`: the command that requested it, and its answer."""

    asked: e.LabelFrame
    answer: e.Labelled | e.NotLabelled


def read_labels(folder: Path, levels: Mapping[str, LevelId]) -> Iterator[ColumnLabel]:
    """Yield the whole rows of the tables `labels/<fidelity>` in a folder, in order.

    levels: the level of each fidelity.
    """
    frames = _Table(folder, "structures", (*_PLACES, "molecule"))
    for fidelity in FIDELITIES:
        if fidelity in levels:
            table = _Table(folder, f"labels/{fidelity}", ())
            for row in range(len(table)):
                found = _label(table, frames, row, (fidelity, levels[fidelity]))
                if found is not None:
                    yield found


def _label(
    table: "_Table", frames: "_Table", row: int, level: tuple[str, LevelId]
) -> ColumnLabel | None:
    said = table.row(row)
    place = said.get("structure", -1)
    frame = _frame(frames.row(int(place))) if 0 <= place < len(frames) else None
    if frame is None or not {"status", "energy", "purpose"} <= said.keys():
        return None
    asked = e.LabelFrame(
        frame=frame[0],
        level=level[1],
        fidelity=level[0],
        purpose=_word(PURPOSES, said["purpose"], "given"),
        molecule=frame[1],
    )
    answer = _answer(asked, said)
    return None if answer is None else ColumnLabel(asked, answer)


def _answer(
    asked: e.LabelFrame, said: Mapping[str, Any]
) -> e.Labelled | e.NotLabelled | None:
    frame, seconds = asked.frame, float(said.get("cpu_seconds", 0.0))
    timing = e.Timing(cpu_seconds=seconds)
    if said["status"]:
        code = _word(FAILURES, said.get("failure", 0), "") or "LOST"
        refused = Unlabelled(frame.id, asked.level, Failure[code], "", seconds)
        return e.NotLabelled(asked.name, refused, timing)
    forces = said.get("forces")
    if forces is None or forces.shape != frame.positions.shape:
        return None
    whole = np.isfinite(forces).all() and np.isfinite(said["energy"])
    label = Label(
        frame=frame.id,
        level=asked.level,
        energy=float(said["energy"]),
        forces=np.asarray(forces, np.float64),
        cpu_seconds=seconds,
        details=_details(said),
        stress=_stress(said),
    )
    cached = bool(said.get("cached", False))
    return e.Labelled(asked.name, label, timing, cached) if whole else None


def _stress(said: Mapping[str, Any]) -> Array | None:
    stress = np.asarray(said.get("stress", np.nan), np.float64)
    return stress if np.isfinite(stress).all() else None


def _details(said: Mapping[str, Any]) -> dict[str, Detail]:
    """Return the details of a label, as far as the columns hold them."""
    known = {key: float(said[key]) for key in _NUMBERS if key in said}
    details: dict[str, Detail] = {k: v for k, v in known.items() if np.isfinite(v)}
    rung = _word(RUNGS, said.get("rung", 0), "")
    found = [doubt for doubt in doubts.Doubt if said.get(doubt.name.lower(), False)]
    return (
        details
        | ({"rung": rung} if rung else {})
        | ({doubts.KEY: doubts.doubts_to_text(found)} if found else {})
    )


def _frame(said: Mapping[str, Any]) -> tuple[Frame, int] | None:
    """Return the frame of a row of `structures` and its molecule.

    None if the row is not whole, or the id is not that of the content.
    """
    if not {*_PLACES, "molecule"} - {"offsets"} <= said.keys():
        return None
    frame = Frame(
        said["numbers"].astype(np.int64),
        said["positions"],
        int(said["charge"]),
        int(said["spin"]),
        said["cell"],
        tuple(map(bool, said["pbc"])),  # type: ignore[arg-type]
    )
    same = frame.id.encode() == bytes(said["id"])
    return (frame, int(said["molecule"])) if same else None


def _word(codes: tuple[str, ...], number: Any, other: str) -> str:
    return codes[int(number)] if int(number) < len(codes) else other


class _Table:
    """The arrays of a table that can be read."""

    def __init__(self, folder: Path, name: str, only: tuple[str, ...]) -> None:
        self._columns = {
            key: column
            for key, column in table_columns(name).items()
            if not only or key in only
        }
        self._arrays = {
            key: found
            for key, column in self._columns.items()
            if (found := _array(folder / name / key, column)) is not None
        }
        lengths = [
            len(values)
            for key, (values, _) in self._arrays.items()
            if self._columns[key].along not in (ATOM, BOUND)
        ]
        self._rows = min(lengths, default=0)

    def __len__(self) -> int:
        return self._rows

    def row(self, row: int) -> dict[str, Any]:
        """Return the values of a row by column, without those that cannot be read."""
        begin, end = self._atoms(row)
        out: dict[str, Any] = {}
        for key, (values, whole) in self._arrays.items():
            along = self._columns[key].along
            if along == ATOM and 0 <= begin <= end <= len(values):
                if whole[begin:end].all():
                    out[key] = values[begin:end]
            elif along not in (ATOM, BOUND) and whole[row]:
                out[key] = values[row]
        return out

    def _atoms(self, row: int) -> tuple[int, int]:
        values, whole = self._arrays.get("offsets", (np.zeros(0), np.zeros(0)))
        known = row + 1 < len(values) and bool(whole[row] and whole[row + 1])
        return (int(values[row]), int(values[row + 1])) if known else (-1, -1)


def _array(path: Path, column: Column) -> tuple[Array, Array] | None:
    """Return the values of a column and a mask of its whole rows.

    None where the array cannot be opened or does not match the schema.
    """
    import zarr  # slow to import: `status` rarely gets here

    try:
        array: Any = zarr.open_array(path, mode="r")
        fits = array.dtype == np.dtype(column.dtype)
        fits = fits and tuple(array.shape[1:]) == column.tail
        step = int(array.chunks[0])
        length = int(array.shape[0])
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return None
    if not fits or step < 1:
        return None
    values = np.zeros((length, *column.tail), column.dtype)
    whole = np.zeros(length, np.bool_)
    for begin in range(0, length, step):
        if not (path / chunk_name(begin // step, array.ndim)).is_file():
            continue  # zarr would read it as fill values
        try:
            values[begin : begin + step] = array[begin : begin + step]
            whole[begin : begin + step] = True
        except (OSError, ValueError, RuntimeError):
            continue
    return values, whole
