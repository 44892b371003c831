"""The schema of the columns, for plain zarr: names, dtypes, dimensions, units.

A table is a group of arrays with one row for each structure, label, score... Ragged
data are stored flat: row i owns the atoms offsets[i]:offsets[i + 1]. Ids are rows of 32
ASCII digits (`bytes(row).decode()`), words are small numbers whose meaning is listed in
the array's attribute `codes`: text has no data type in the Zarr v3 specification.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from alloop.core.doubts import Doubt
from alloop.core.levels import FIDELITIES
from alloop.core.records import Failure
from alloop.core.seeds import Purpose
from alloop.store.record import Array

Table: TypeAlias = Mapping[str, Array]
Tables: TypeAlias = Mapping[str, Table]

VERSION = 6  # of everything below; older columns are rebuilt
ROW, ATOM, BOUND = "row", "atom", "bound"
ROWS_A_CHUNK = 8192
ATOMS_A_CHUNK = 65536
DIGITS = 32

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
STATES = ("ok", "failed")
# Appended to, never reordered: the numbers are in the stores.
FAILURES = (
    "",
    "GEOMETRY",
    "NOT_CONVERGED",
    "CC_NOT_CONVERGED",
    "GATE",
    "ELECTRONS",
    "UNSUPPORTED",
    "TIMEOUT",
    "MEMORY",
    "CRASHED",
    "LOST",
    "UNSTABLE",
    "MISSING",
    "DISK",
    "CAS_NOT_CONVERGED",
)
RUNGS = ("", "default", "damping", "level shift", "second order", "other")


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a table.

    along: the meaning of its first axis (ROW, ATOM or BOUND: rows + 1); axes: the names
    and lengths of the others.
    """

    dtype: str
    about: str
    units: str = ""
    along: str = ROW
    axes: tuple[tuple[str, int], ...] = ()
    codes: tuple[str, ...] = ()

    @property
    def tail(self) -> tuple[int, ...]:
        """The shape beyond the first axis."""
        return tuple(length for _, length in self.axes)

    @property
    def chunk(self) -> int:
        """The number of rows in a chunk."""
        return ATOMS_A_CHUNK if self.along == ATOM else ROWS_A_CHUNK


_XYZ = (("xyz", 3),)
_CELL = (("vector", 3), ("xyz", 3))
_HEX = (("digit", DIGITS),)
_OFFSETS = Column("i8", "row i owns the atoms offsets[i]:offsets[i + 1]", along=BOUND)
_NUMBERS = Column("u1", "atomic numbers", along=ATOM)
_POSITIONS = Column("f8", "positions", "angstrom", ATOM, _XYZ)
_VECTORS = Column("f8", "rows are vectors, zero without", "angstrom", ROW, _CELL)
_PERIODIC = Column("bool", "periodic along each vector", axes=(("vector", 3),))
_STRUCTURE = Column("i8", "row of the frame in `structures`")
_MOLECULE = Column("i8", "the start molecule it descends from")
_STEP = Column("i8", "MD steps that the walker had taken")
_CURVATURE = "lowest curvature of the SCF energy, NaN if not checked,"
_PURPOSE = Column("u1", "why it was asked for", codes=PURPOSES)
_FIDELITY = Column("u1", "the role of the level", codes=FIDELITIES)

# The first column of a table counts its rows, and is the last to grow.
STRUCTURES: dict[str, Column] = {
    "id": Column("u1", "hash of the content, 32 ASCII hexadecimal digits", axes=_HEX),
    "offsets": _OFFSETS,
    "numbers": _NUMBERS,
    "positions": _POSITIONS,
    "cell": _VECTORS,
    "pbc": _PERIODIC,
    "charge": Column("i8", "total charge", "e"),
    "spin": Column("i8", "2S, the number of unpaired electrons"),
    "molecule": _MOLECULE,
}
LABELS: dict[str, Column] = {
    "structure": _STRUCTURE,
    "offsets": _OFFSETS,
    "energy": Column("f8", "energy, NaN where it failed", "eV"),
    "forces": Column("f8", "none where it failed", "eV/angstrom", ATOM, _XYZ),
    "stress": Column(
        "f8",
        "xx yy zz yz xz xy, negative under pressure, NaN where there is none",
        "eV/angstrom^3",
        axes=(("voigt", 6),),
    ),
    "status": Column("u1", "how it ended", codes=STATES),
    "failure": Column("u1", "why there is no label", codes=FAILURES),
    "cpu_seconds": Column("f8", "what it cost", "s"),
    "purpose": _PURPOSE,
    "cached": Column("bool", "somebody else had paid for it"),
    "peak_mb": Column("f8", "memory of its process at most, NaN if not known", "MB"),
    "rung": Column("u1", "of the ladder, where the SCF converged", codes=RUNGS),
    "gap": Column("f8", "HOMO-LUMO gap, NaN where not known", "eV"),
    "s2": Column("f8", "<S²>, NaN where not known", "1"),
    "t1": Column("f8", "T1 diagnostic, NaN where not known", "1"),
    "internal": Column("f8", f"{_CURVATURE} within its spin symmetry", "hartree"),
    "external": Column("f8", f"{_CURVATURE} that breaks spin symmetry", "hartree"),
    "instability": Column("bool", Doubt.INSTABILITY.value),
    "multireference": Column("bool", Doubt.MULTIREFERENCE.value),
    "contamination": Column("bool", Doubt.CONTAMINATION.value),
    "unbound": Column("bool", Doubt.UNBOUND.value),
    "rival": Column("bool", Doubt.RIVAL.value),
    "active_space": Column("bool", Doubt.ACTIVE_SPACE.value),
}
NOISE: dict[str, Column] = {
    "structure": _STRUCTURE,
    "fidelity": _FIDELITY,
    "energy": Column("f8", "how far it moved, NaN where it failed", "eV"),
    "force_rms": Column("f8", "likewise, over components", "eV/angstrom"),
    "force_max": Column("f8", "likewise, the largest component", "eV/angstrom"),
    "cpu_seconds": Column("f8", "what the second label cost", "s"),
    "failure": Column("u1", "why there is no second label", codes=FAILURES),
}
SCORES: dict[str, Column] = {
    "structure": _STRUCTURE,
    "generation": Column("i8", "the model that judged"),
    "surprise": Column("f8", "larger means less trusted"),
    "threshold": Column("f8", "above it a frame is flagged, NaN without"),
    "energy": Column("f8", "predicted, before any label", "eV"),
    "round": Column("i8", "round of the loop"),
    "walker": Column("i8", "the trajectory it was found on"),
    "step": _STEP,
}
SELECTIONS: dict[str, Column] = {
    "structure": _STRUCTURE,
    "fidelity": _FIDELITY,
    "purpose": _PURPOSE,
    "round": Column("i8", "round of the loop"),
}
WALKERS: dict[str, Column] = {
    "walker": Column("i8", "index of the trajectory"),
    "molecule": _MOLECULE,
    "step": _STEP,
    "stopped": Column("bool", "a guard rail ended it"),
    "offsets": _OFFSETS,
    "numbers": _NUMBERS,
    "positions": _POSITIONS,
    "cell": _VECTORS,
    "pbc": _PERIODIC,
    "velocities": Column("f8", "velocities", "angstrom/fs", ATOM, _XYZ),
}
GENERATIONS: dict[str, Column] = {
    "generation": Column("i8", "number of the model, 0 is the start"),
    "model": Column("u1", "id in `models`, 32 ASCII hexadecimal digits", axes=_HEX),
    "threshold": Column("f8", "surprise above which a frame is flagged, NaN without"),
    "energy_mae": Column("f8", "on the test set, mean difference removed", "eV"),
    "force_mae": Column("f8", "on the test set, over components", "eV/angstrom"),
    "force_rmse": Column("f8", "on the test set, over components", "eV/angstrom"),
    "cheap": Column("i8", "cheap labels it learned from"),
    "expensive": Column("i8", "expensive labels it learned from"),
    "cpu_seconds": Column("f8", "cost of the training", "s"),
}
TABLES = {
    "structures": STRUCTURES,
    "labels": LABELS,
    "noise": NOISE,
    "scores": SCORES,
    "selections": SELECTIONS,
    "walkers": WALKERS,
    "generations": GENERATIONS,
}
REPLACED = ("walkers",)  # only the last states count; the others grow


def table_columns(table: str) -> dict[str, Column]:
    """Return the columns of a table (`structures`, `labels/cheap`).

    The one that counts the rows is the first.
    """
    return TABLES[table.split("/")[0]]


def checked_table(name: str, table: Table) -> dict[str, Array]:
    """Return the table's arrays in the schema's dtypes; raise ValueError if unfit."""
    columns = table_columns(name)
    if set(table) != set(columns):
        raise ValueError(
            f"table {name} needs the columns {sorted(columns)}, got {sorted(table)}"
        )
    out = {key: np.asarray(table[key], column.dtype) for key, column in columns.items()}
    fault = shape_mismatch(name, {key: array.shape for key, array in out.items()})
    if fault or not _offsets_in_bounds(out):
        raise ValueError(f"table {name}: {fault or 'the offsets do not fit the atoms'}")
    return out


def shape_mismatch(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the mistake in the shapes of a table's arrays, "" if there is none."""
    columns = table_columns(name)
    rows = shapes[next(iter(columns))][0]
    atoms = {shapes[key][0] for key, c in columns.items() if c.along == ATOM}
    if len(atoms) > 1:
        return f"its flat arrays have {sorted(atoms)} atoms"
    lengths = {ROW: rows, BOUND: rows + 1, ATOM: atoms.pop() if atoms else 0}
    for key, column in columns.items():
        expected = (lengths[column.along], *column.tail)
        if shapes[key] != expected:
            return f"{key} has shape {shapes[key]}, expected {expected}"
    return ""


def _offsets_in_bounds(arrays: Mapping[str, Array]) -> bool:
    if "offsets" not in arrays:
        return True
    atoms = next(len(arrays[key]) for key in ("positions", "forces") if key in arrays)
    return offsets_fit(arrays["offsets"], atoms)


def offsets_fit(offsets: Array, atoms: int) -> bool:
    """Return True if offsets begin at 0, never decrease, and end at `atoms`."""
    spans = int(offsets[0]) == 0 and int(offsets[-1]) == atoms
    return spans and bool(np.all(np.diff(offsets) >= 0))


def id_digits(ids: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return ids of 32 hexadecimal digits as rows of ASCII (n, 32)."""
    joined = "".join(ids).encode()
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGITS)


def id_texts(rows: npt.NDArray[np.uint8]) -> list[str]:
    """Return the ids of rows of ASCII (n, 32)."""
    return [bytes(row).decode() for row in rows]


def word_codes(words: Iterable[str], codes: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Return the indices (n,) of words in `codes`; raise ValueError for other words."""
    return np.array([codes.index(word) for word in words], dtype=np.uint8)


def failure_codes(failures: Iterable[Failure | None]) -> npt.NDArray[np.uint8]:
    """Return the numbers (n,) of failures; None stands for no failure."""
    return word_codes(("" if f is None else f.name for f in failures), FAILURES)


def column_attributes(column: Column) -> dict[str, Any]:
    """Return the attributes of a column's array: its meaning, units and codes."""
    attributes: dict[str, Any] = {"about": column.about}
    if column.units:
        attributes["units"] = column.units
    if column.codes:
        attributes["codes"] = list(column.codes)
    if column.codes is FAILURES:
        attributes["advice"] = ["", *(Failure[code].value for code in FAILURES[1:])]
    return attributes
