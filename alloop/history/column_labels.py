"""Labels read from the columns of a store, without its journal.

Used where the journal has lost labels that the columns still hold. Every chunk has a
checksum and a frame's id is a hash of its content, so rows that can be read are as they
were written; rows that cannot be read are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alloop.core import doubts
from alloop.core.errors import StoreError
from alloop.core.frame import Frame
from alloop.core.levels import FIDELITIES, Fidelity, LevelId
from alloop.core.records import Detail, Failure, Label, Unlabelled
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.store import root
from alloop.store.chunks import chunk_name, open_array
from alloop.store.journal import FOLDER, Journal
from alloop.store.record import Array
from alloop.store.schema import (
    ATOM,
    BOUND,
    FAILURES,
    PURPOSES,
    RUNGS,
    Column,
    table_columns,
)
from alloop.store.set_aside import foreign_record, set_aside_folders

_Word = TypeVar("_Word", bound=str)
_NUMBERS = ("peak_mb", "gap", "s2", "t1", "internal", "external")
_PLACES = ("id", "offsets", "numbers", "positions", "cell", "pbc", "charge", "spin")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnLabel:
    """A row of `labels`: the command that requested it, and its answer."""

    asked: LabelFrame
    answer: e.Labelled | e.NotLabelled


def read_labels(
    folder: Path, levels: Mapping[Fidelity, LevelId]
) -> Iterator[ColumnLabel]:
    """Yield the whole rows of the tables `labels/<fidelity>` in a folder, in order.

    levels: the level of each fidelity.
    """
    frames = _Table(folder, "structures", (*_PLACES, "molecule"))
    for fidelity in FIDELITIES:
        if fidelity in levels:
            table = _Table(folder, f"labels/{fidelity}", ())
            for row in range(len(table)):
                label = _row_label(table, frames, row, (fidelity, levels[fidelity]))
                if label is not None:
                    yield label


def _row_label(
    table: "_Table", frames: "_Table", number: int, level: tuple[Fidelity, LevelId]
) -> ColumnLabel | None:
    row = table.row(number)
    place = row.get("structure", -1)
    frame = _row_frame(frames.row(int(place))) if 0 <= place < len(frames) else None
    if frame is None or not {"status", "energy", "purpose"} <= row.keys():
        return None
    request = LabelFrame(
        frame=frame[0],
        level=level[1],
        fidelity=level[0],
        purpose=_code_word(PURPOSES, row["purpose"], "given"),
        molecule=frame[1],
    )
    answer = _row_answer(request, row)
    return None if answer is None else ColumnLabel(request, answer)


def _row_answer(
    request: LabelFrame, row: Mapping[str, Any]
) -> e.Labelled | e.NotLabelled | None:
    frame, seconds = request.frame, float(row.get("cpu_seconds", 0.0))
    timing = e.Timing(cpu_seconds=seconds)
    if row["status"]:
        code = _code_word(FAILURES, row.get("failure", 0), "") or "LOST"
        refused = Unlabelled(frame.id, request.level, Failure[code], "", seconds)
        return e.NotLabelled(request.name, refused, timing)
    forces = row.get("forces")
    if forces is None or forces.shape != frame.positions.shape:
        return None
    label = Label(
        frame=frame.id,
        level=request.level,
        energy=float(row["energy"]),
        forces=np.asarray(forces, np.float64),
        cpu_seconds=seconds,
        details=_row_details(row),
        stress=_row_stress(row),
    )
    cached = bool(row.get("cached", False))
    if not label.is_numeric:
        return None
    return e.Labelled(request.name, label, timing, cached)


def _row_stress(row: Mapping[str, Any]) -> Array | None:
    stress = np.asarray(row.get("stress", np.nan), np.float64)
    return stress if np.isfinite(stress).all() else None


def _row_details(row: Mapping[str, Any]) -> dict[str, Detail]:
    """Return the details of a label, as far as the columns hold them."""
    numbers = {key: float(row[key]) for key in _NUMBERS if key in row}
    details: dict[str, Detail] = {k: v for k, v in numbers.items() if np.isfinite(v)}
    rung = _code_word(RUNGS, row.get("rung", 0), "")
    row_doubts = [doubt for doubt in doubts.Doubt if row.get(doubt.name.lower(), False)]
    return (
        details
        | ({"rung": rung} if rung else {})
        | ({doubts.KEY: doubts.doubts_to_text(row_doubts)} if row_doubts else {})
    )


def _row_frame(row: Mapping[str, Any]) -> tuple[Frame, int] | None:
    """Return the frame of a row of `structures` and its molecule.

    None if the row is not whole, or the id is not that of the content.
    """
    if not {*_PLACES, "molecule"} - {"offsets"} <= row.keys():
        return None
    frame = Frame(
        row["numbers"].astype(np.int64),
        row["positions"],
        charge=int(row["charge"]),
        spin=int(row["spin"]),
        cell=row["cell"],
        pbc=tuple(map(bool, row["pbc"])),  # type: ignore[arg-type]
    )
    same = frame.id.encode() == bytes(row["id"])
    return (frame, int(row["molecule"])) if same else None


def _code_word(codes: tuple[_Word, ...], number: Any, other: _Word) -> _Word:
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
            key: array
            for key, column in self._columns.items()
            if (array := _readable_array(folder / name / key, column)) is not None
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
        for key, (values, readable) in self._arrays.items():
            along = self._columns[key].along
            if along == ATOM and 0 <= begin <= end <= len(values):
                if readable[begin:end].all():
                    out[key] = values[begin:end]
            elif along not in (ATOM, BOUND) and readable[row]:
                out[key] = values[row]
        return out

    def _atoms(self, row: int) -> tuple[int, int]:
        values, readable = self._arrays.get("offsets", (np.zeros(0), np.zeros(0)))
        complete = row + 1 < len(values) and bool(readable[row] and readable[row + 1])
        return (int(values[row]), int(values[row + 1])) if complete else (-1, -1)


def _readable_array(path: Path, column: Column) -> tuple[Array, Array] | None:
    """Return the values of a column and a mask of its whole rows.

    None where the array cannot be opened or does not match the schema.
    """
    try:
        array = open_array(path)
        fits = array.dtype == np.dtype(column.dtype)
        fits = fits and tuple(array.shape[1:]) == column.tail
        step = int(array.chunks[0])
        chunks = sum(1 for _ in path.glob("c.*"))  # a lost one may be the last
        length = min(int(array.shape[0]), (chunks + 1) * step)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return None
    if not fits or step < 1:
        return None
    values = np.zeros((length, *column.tail), column.dtype)
    readable = np.zeros(length, np.bool_)
    for begin in range(0, length, step):
        if not (path / chunk_name(begin // step, array.ndim)).is_file():
            continue  # zarr would read it as fill values
        try:
            values[begin : begin + step] = array[begin : begin + step]
            readable[begin : begin + step] = True
        except (OSError, ValueError, RuntimeError):
            continue
    return values, readable


@dataclass(frozen=True, slots=True)
class SetAsideLabels:
    """A read-only label cache of columns that were set aside.

    A driver that requests such a label again gets it from here.
    """

    labels: Mapping[tuple[LevelId, str], Label]

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the label under this key, None without one."""
        return self.labels.get((level, frame))

    def put(self, record: Label | Unlabelled) -> None:
        """Do nothing: no label is added to columns that were set aside."""


def set_aside_labels(history: History) -> tuple[SetAsideLabels, ...]:
    """Return a cache of the labels in the store's set-aside columns, () without any."""
    good = [
        x
        for part in set_aside_folders(history.path)
        for x in _good_labels(history, part)
    ]
    labels = {(x.level, x.frame): x for x in good}
    return (SetAsideLabels(labels),) if labels else ()


def columns_ahead(store: Path) -> list[Path]:
    """Return the folders whose columns extend beyond the journal or diverge from it.

    These are the store's own folder and those that were set aside; [] where there is no
    store.
    """
    return [store] * (_foreign_record(store) >= 0) + list(set_aside_folders(store))


def lost_label_warning(history: History) -> str:
    """Return a sentence about labels that only columns hold, "" where there are none.

    Such labels come from a journal that lost its end or was rolled back.
    """
    path = history.path
    places = columns_ahead(path)
    lost = {
        (label.level, label.frame)
        for place in places
        for label in _good_labels(history, place)
        if history.label_index.get(label.level, label.frame) is None
    }
    if not lost:
        return ""
    many = f"{len(lost)} label{'s' * (len(lost) > 1)}"
    where = "its columns hold" if places[0] == path else f"{places[0].name} holds"
    return (
        f"the journal of {path} ends at record {history.fold.seq} and has lost {many} "
        f"that {where} still; `alloop doctor {path} --repair OUT` makes a store that "
        "has them"
    )


def _foreign_record(path: Path) -> int:
    try:
        return foreign_record(
            root.node_members(root.read_root(path)), Journal(path / FOLDER)
        )
    except (StoreError, OSError):
        return -1


def _good_labels(history: History, place: Path) -> list[Label]:
    answers = (label.answer for label in read_labels(place, history.state.levels))
    return [answer.label for answer in answers if isinstance(answer, e.Labelled)]
