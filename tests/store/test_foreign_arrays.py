"""A store from elsewhere chooses none of the code that reads it.

The filters of Zarr format 2 can unpickle. numcodecs 0.16.6 and later refuse to, older
ones do not; the tests switch that refusal off.
"""

import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.cli.app import run_command
from alloop.history.column_check import check_columns
from alloop.store.chunks import (
    ArrayLayout,
    array_fault,
    encode_chunks,
    open_array,
    read_array,
)
from alloop.store.models import model_ids

GOLDEN = Path(__file__).parent / "golden" / "format3.tar.xz"
COLUMNS = ("structures/id", "labels/cheap/energy", "scores/structure", "scores/round")


class Trap:
    """An object that makes a folder while it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def crafted_array(folder: Path, trap: Path) -> None:
    """Put an array of Zarr format 2, whose filters unpickle, in a folder's place."""
    shutil.rmtree(folder)
    folder.mkdir(parents=True)
    node = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "compressor": None,
        "fill_value": None,
        "order": "C",
        "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}],
    }
    (folder / ".zarray").write_text(json.dumps(node))
    (folder / ".zattrs").write_text(json.dumps({"sha256": "0" * 64}))
    (folder / "0").write_bytes(pickle.dumps(Trap(trap)))


@pytest.fixture
def crafted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A store with such arrays for its models and columns, and the trap's folder."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    store, trap = tmp_path / "format3.zarr", tmp_path / "trap"
    for model in model_ids(store):
        crafted_array(store / "models" / model, trap)
    for name in COLUMNS:
        crafted_array(store / name, trap)
    return store, trap


def test_the_trap_closes_on_whoever_opens_any_format(
    crafted: tuple[Path, Path],
) -> None:
    import zarr

    store, trap = crafted
    model = store / "models" / model_ids(store)[0]
    array: Any = zarr.open_array(model, mode="r")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever zarr makes of it
        array[:]
    assert trap.is_dir()


@pytest.mark.parametrize(
    "command",
    [
        *("doctor STORE", "doctor STORE --repair OUT", "resume STORE", "run STORE"),
        *("fork STORE OUT --at 1", "status STORE", "log STORE", "report STORE"),
        *("export STORE --out OUT", "export STORE --model OUT", "why STORE FRAME"),
        *("exclude STORE FRAME --reason odd", "md STORE --steps 2", "plan STORE"),
        *("score STORE FILE", "refine STORE FILE --cheap toy", "stop STORE"),
        *("diagnose STORE FILE", "train STORE", "label FILE STORE", "check STORE"),
        *("atoms H --level STORE",),
    ],
)
def test_no_command_runs_what_a_crafted_store_names(
    crafted: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    store, trap = crafted
    file = tmp_path / "water.xyz"
    file.write_text("3\n\nO 0 0 0.1\nH 0 0.8 -0.5\nH 0 -0.8 -0.5\n")
    words = {"STORE": store, "OUT": tmp_path / "out", "FILE": file, "FRAME": "0"}
    code = run_command([str(words.get(word, word)) for word in command.split()])
    assert not trap.exists()
    if command.startswith("doctor STORE"):
        assert (code != 0) == (command == "doctor STORE")


def test_doctor_names_every_crafted_array(crafted: tuple[Path, Path]) -> None:
    store, trap = crafted
    where = {finding.where for finding in check_columns(store)}
    assert {f"model {model}" for model in model_ids(store)} <= where
    assert set(COLUMNS) <= where
    assert not trap.exists()


FOREIGN: dict[str, dict[str, Any]] = {
    "the codec 'pickle'": {"codecs": [{"name": "bytes"}, {"name": "pickle"}]},
    "the codec 'gzip'": {"codecs": [{"name": "bytes"}, {"name": "gzip"}]},
    "Zarr format": {"zarr_format": 2},
    "data type": {"data_type": "string"},
    "chunk grid": {
        "chunk_grid": {"name": "own", "configuration": {"chunk_shape": [4]}}
    },
    "storage transformer": {"storage_transformers": [{"name": "own"}]},
    "chunk keys": {"chunk_key_encoding": {"name": "v2"}},
    "shape": {"shape": [-1]},
    "not those of an array": {"codecs": "pickle"},
}


@pytest.fixture
def array(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """An array as alloop writes it, and its metadata."""
    node, chunks = encode_chunks(np.arange(6.0), ArrayLayout(4, ("row",)))
    for key, data in chunks.items():
        (tmp_path / key).write_bytes(data)
    return tmp_path, node


@pytest.mark.parametrize("what", FOREIGN)
def test_metadata_that_alloop_does_not_write_are_refused(
    array: tuple[Path, dict[str, Any]], what: str
) -> None:
    folder, node = array
    assert read_array(folder, node).tolist() == [0, 1, 2, 3, 4, 5]
    assert what in array_fault(node | FOREIGN[what])
    with pytest.raises(ValueError, match=what):
        open_array(folder, node | FOREIGN[what])


def test_a_few_bytes_do_not_fill_the_memory(
    array: tuple[Path, dict[str, Any]],
) -> None:
    folder, node = array
    with pytest.raises(FileNotFoundError):  # 2 TB of fill values, else
        read_array(folder, node | {"shape": [2**38]})
    with pytest.raises(ValueError, match="shape"):
        open_array(folder, node | {"chunk_grid": {
            "name": "regular", "configuration": {"chunk_shape": [2**38]}}})  # fmt: skip
    _, bomb = encode_chunks(np.zeros(2**22), ArrayLayout(2**22, ("row",)))
    assert len(bomb["c.0"]) < 50_000  # of 32 MB
    (folder / "c.1").write_bytes(bomb["c.0"])
    with pytest.raises(ValueError, match="larger than a chunk"):
        read_array(folder, node)
