"""Files of strangers are read, or refused in a sentence, whatever stands in them."""

import contextlib
import io
import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from alloop.core.errors import InputError
from alloop.files.frames import read_frames, read_sound_frames
from alloop.files.label_files import convert_labels, read_file
from alloop.files.labelled_frames import FileUnits, LabelKeys

UNITS = FileUnits("eV", "angstrom")


def read_labels(path: Path) -> int:
    return len(convert_labels(path, read_file(path, LabelKeys()), UNITS))


def database(path: Path, column: str = "", value: Any = None) -> Path:
    """A database of one water molecule, a column of which is overwritten."""
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)))
    with ase.db.connect(path) as rows:
        rows.write(atoms)
    if column:
        with sqlite3.connect(path) as connection:
            connection.execute(f"update systems set {column} = ?", (value,))
        connection.close()
    return path


NAMED = [{"name": "os.system", "kwargs": {"command": "touch ran"}}]
COLUMNS: list[tuple[str, Any]] = [
    ("numbers", b"\xff" * 7),
    ("numbers", np.array([300, 1, 1], np.int32).tobytes()),
    ("numbers", None),
    ("positions", b""),
    ("positions", None),
    ("positions", np.full(9, np.nan).tobytes()),
    ("cell", "x"),
    ("pbc", 77),
    ("key_value_pairs", "[1, 2"),
    ("key_value_pairs", "[1, 2]"),
    ("key_value_pairs", "[" * 100_000),
    ("key_value_pairs", '{"__ase_objtype__": "cell", "array": 3}'),
    ("data", '{"a": {"__ase_objtype__": "os.system"}}'),
    ("data", '{"a": {"__ndarray__": [[100000, 100000, 100000], "float64", []]}}'),
    ("constraints", json.dumps(NAMED)),
    ("constraints", '"x"'),
    ("calculator_parameters", "{"),
    ("energy", "many"),
    ("forces", b"\1" * 5),
    ("magmom", "m"),
]


@pytest.mark.parametrize(("column", "value"), COLUMNS)
def test_a_crafted_database_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = database(tmp_path / "x.db", column, value)
    with pytest.raises(InputError) as told:
        read_labels(path)
    assert "\n" not in str(told.value)
    with contextlib.suppress(InputError):
        read_frames([str(path)])
    assert not (tmp_path / "ran").exists()


def test_damaged_databases_are_refused_and_a_whole_one_is_read(tmp_path: Path) -> None:
    whole = database(tmp_path / "whole.db")
    assert read_labels(whole) == 1
    data = whole.read_bytes()
    scraps = {"half": data[: len(data) // 2], "text": b"text", "empty": b""}
    for name, content in scraps.items():
        path = tmp_path / f"{name}.db"
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_labels(path)
    with sqlite3.connect(whole) as connection:
        connection.execute("drop table information")
    with pytest.raises(InputError):
        read_frames([str(whole)])


WATERS = {
    "R": np.array([[[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]]] * 2),
    "z": np.array([8, 1, 1]),
    "E": np.zeros(2),
    "F": np.zeros((2, 3, 3)),
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"z": np.array(["O", "H", "H"])},
        *({"z": np.array([first, 1, 1])} for first in (300, -8, 8.5, np.nan)),
        {"R": np.full((2, 3, 3), "x")},
        {"R": np.zeros((2, 3, 3), "M8[s]")},
        {"R": np.zeros((2, 3, 3), [("a", "f8")])},
        {"R": WATERS["R"] + 1j},
        {"R": WATERS["R"] * np.nan},
        {"R": np.zeros((2, 3, 3))},
        {"R": np.float64(3.0)},
        {"E": np.full(2, "x")},
        {"F": np.full((2, 3, 3), b"x")},
        {"Q": np.full(2, "x")},
        {"charge": np.full(2, np.nan)},
        {"multiplicity": np.full(2, 1e30)},
    ],
    ids=lambda wrong: "-".join(
        f"{k} {v.dtype} {v.ravel()[0]}" for k, v in wrong.items()
    ),
)
def test_a_crafted_npz_is_refused_in_a_sentence(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    np.savez(tmp_path / "whole.npz", **WATERS)
    assert read_labels(tmp_path / "whole.npz") == 2
    np.savez(tmp_path / "x.npz", **{**WATERS, **wrong})
    with pytest.raises(InputError) as told:
        read_labels(tmp_path / "x.npz")
    assert "\n" not in str(told.value)


def test_an_npz_that_claims_more_than_fits_the_memory_is_refused(
    tmp_path: Path,
) -> None:
    head = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3, 3)}
    np.lib.format.write_array_header_2_0(head, shape)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("R.npy", head.getvalue())
    with pytest.raises(InputError, match="npz of plain arrays"):
        read_labels(tmp_path / "x.npz")


WATER = "O 0 0 0.1\nH 0 0.8 -0.5\nH 0 -0.8 -0.5\n"
COLUMN = "Properties=species:S:1:pos:R:3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('3\npbc="T T T"\n' + WATER, "no cell vector"),
        (
            f'3\n{COLUMN} pbc="T T T" Lattice="9 0 0 0 9 0 9 9 0"\n{WATER}',
            "not independent",
        ),
        ("3\n\n" + WATER.replace("0.8", "nan", 1), "not finite"),
        ("3\n\n" + WATER.replace("0.8", "1e300", 1), "lose their last digits"),
        (f'3\n{COLUMN} x="_JSON {"[" * 100_000}"\n{WATER}', "cannot be read"),
        (f'3\n{COLUMN} Lattice="a b"\n{WATER}', "cannot be read"),
    ],
)
def test_what_no_program_can_use_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "x.extxyz"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_sound_frames([str(path)])
