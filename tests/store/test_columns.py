"""Columns are read by plain zarr, and never seen half-written."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alloop.core.errors import StoreError
from alloop.store import columns, schema
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from benchmarks.durability.file_systems import FailingFileSystem, UnsyncedFileSystem

MAKE = '''
import numpy as np
from alloop.store import schema

NAMES = ("structures", "labels/cheap", "scores", "walkers")

def table(name, rows):
    """Columns of `rows` rows that are a function of the row, with 0 to 2 atoms each."""
    offsets = np.concatenate([[0], np.cumsum(np.arange(rows) % 3)]).astype(int)
    lengths = {"row": rows, "bound": rows + 1, "atom": int(offsets[-1])}
    out = {}
    for key, column in schema.table_columns(name).items():
        first = np.arange(lengths[column.along]) + 1
        shape = (-1, *(1 for _ in column.tail))
        full = (len(first), *column.tail)
        values = np.broadcast_to(first.reshape(shape) % 250 + 1, full)
        out[key] = values.astype(column.dtype)
    return out | ({"offsets": offsets} if "offsets" in out else {})

def tables(rows):
    return {name: table(name, rows) for name in NAMES}

def rows_of(name, begin, end):
    """Rows `begin` to `end` of a table as if there were no others."""
    whole, out = table(name, end), {}
    offsets = whole.get("offsets", [0] * (end + 1))
    for key, column in schema.table_columns(name).items():
        first = offsets[begin] if column.along == schema.ATOM else begin
        out[key] = whole[key][first:]
    bounds = {"offsets": out["offsets"] - offsets[begin]} if "offsets" in out else {}
    return out | bounds

def grown(begin, end, names=NAMES):
    """What the records from `begin` to `end` made; walkers are always whole."""
    new = {name: rows_of(name, begin, end) for name in names if name != "walkers"}
    return new | {"walkers": table("walkers", end)}
'''


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROWS_A_CHUNK", 1024)
    monkeypatch.setattr(schema, "ATOMS_A_CHUNK", 8192)


WRITER = (
    MAKE
    + """
import os
schema.ROWS_A_CHUNK, schema.ATOMS_A_CHUNK = 1024, 8192
from alloop.store import columns
from alloop.store.archive import Archive
from alloop.store.codec import Codec
def work(path):
    Archive._set_aside = lambda _: None  # there are columns alone, no record
    with Archive.open(path, Codec([]), "w") as archive:
        rows = max(0, columns.appendable_record(archive.path))
        while True:
            rows += 700
            columns.fill_columns(archive, lambda x: grown(max(0, x), rows), rows)
            with open(path + ".done", "a") as done:
                done.write(f"{rows}\\n")
"""
)
READER = (
    MAKE
    + """
import sys, warnings, zarr
warnings.simplefilter("error")
path, reads, last = sys.argv[1], 0, 0
print("ready", flush=True)
import select
stopped = False
while not stopped:
    stopped = bool(select.select([sys.stdin], [], [], 0)[0])  # one last read
    root = zarr.open_group(path, mode="r")
    present = dict(root.members(max_depth=None))
    for name in NAMES:
        if name not in present:
            continue
        if name == "walkers":
            (name,) = (f"walkers/{key}" for key in root["walkers"])
        rows = present[name].attrs["rows"]
        assert rows >= last or name != "structures", "the store went back"
        last = rows if name == "structures" else last
        for key, expected in table(name, rows).items():
            found = root[f"{name}/{key}"][:]
            assert np.array_equal(found, expected), (name, key, rows)
    reads += 1
print(reads, last)
"""
)
space: dict[str, Any] = {}
exec(MAKE, space)
tables: Callable[[int], Any] = space["tables"]
rows_of: Callable[[str, int, int], Any] = space["rows_of"]
grown: Callable[..., Any] = space["grown"]
NAMES: tuple[str, ...] = space["NAMES"]


def fill(
    archive: Archive, rows: int, attrs: Any = None, names: Sequence[str] = NAMES
) -> None:
    """Bring the columns up to so many rows of the tables with these names."""

    def new(after: int) -> Any:
        return grown(max(0, after), rows, names)

    columns.fill_columns(archive, new, rows, attrs)


def read(path: Path, **options: Any) -> Any:
    return zarr.open_group(path, mode="r", **options)


def assert_holds(path: Path, rows: int, **options: Any) -> None:
    root = read(path, **options)
    for name, table in tables(rows).items():
        place = f"{name}/{rows:08d}" if name == "walkers" else name
        for key, expected in table.items():
            found = root[place][key]
            assert np.array_equal(found[:], expected), (name, key)
            assert found.dtype == schema.table_columns(name)[key].dtype


@pytest.mark.parametrize("consolidated", [None, False])
def test_plain_zarr_reads_what_was_written(
    archive: Archive, consolidated: bool | None
) -> None:
    for rows in (0, 1024, 1500):
        fill(archive, rows)
        assert_holds(archive.path, rows, use_consolidated=consolidated)
        assert columns.appendable_record(archive.path) == rows


def test_arrays_tell_units_codes_and_dimensions(archive: Archive) -> None:
    fill(archive, 3, {"labels/cheap": {"level": "HF/STO-3G"}})
    labels = read(archive.path)["labels/cheap"]
    assert labels.attrs["level"] == "HF/STO-3G"
    assert (labels.attrs["rows"], labels.attrs["mark"]) == (3, 3)
    forces = labels["forces"]
    assert forces.attrs["units"] == "eV/angstrom"
    assert forces.metadata.dimension_names == ("label_atom", "xyz")
    assert labels["failure"].attrs["codes"][4] == "GATE"
    advice = labels["failure"].attrs["advice"]
    assert ["check of forces" in each for each in advice].index(True) == 4


def test_xarray_opens_a_table(archive: Archive) -> None:
    xarray = pytest.importorskip("xarray")
    fill(archive, 4)
    with xarray.open_zarr(archive.path, group="structures", chunks=None) as data:
        assert data.sizes["structure"] == 4
        assert data["positions"].attrs["units"] == "angstrom"


def test_models_stay_visible_beside_columns(archive: Archive) -> None:
    archive.put_model("m", b"weights")
    fill(archive, 2)
    archive.put_model("n", b"other")
    columns.clear_columns(archive)
    fill(archive, 3)
    assert set(read(archive.path)["models"]) == {"m", "n"}
    assert_holds(archive.path, 3)


def test_writing_the_same_again_changes_nothing(archive: Archive) -> None:
    fill(archive, 9)
    before = {p: p.read_bytes() for p in archive.path.rglob("*") if p.is_file()}
    fill(archive, 9)
    after = {p: p.read_bytes() for p in archive.path.rglob("*") if p.is_file()}
    assert before == after


@pytest.fixture
def swift(archive: Archive, codec: Codec) -> Iterator[Archive]:
    """The store, on a file system that syncs nothing."""
    archive.close()
    with Archive.open(archive.path, codec, "w", files=UnsyncedFileSystem()) as opened:
        yield opened


def test_new_rows_alone_make_the_columns_that_all_rows_make(swift: Archive) -> None:
    asked: list[int] = []

    def more(end: int) -> None:
        def rows(after: int) -> Any:
            asked.append(after)
            return grown(max(after, 0), end)

        columns.fill_columns(swift, rows, end)
        assert_holds(swift.path, end)

    for end in (0, 3, 1024, 1025, 1025, 4100):
        more(end)
    assert asked == [-1, 0, 3, 1024, 1025, 1025]
    assert_holds(swift.path, 4100, use_consolidated=False)


def test_adding_rows_writes_only_the_chunks_they_are_in(swift: Archive) -> None:
    def chunks() -> dict[str, int]:
        folder = swift.path / "scores" / "surprise"
        return {path.name: path.stat().st_ino for path in folder.glob("c.*")}

    columns.fill_columns(swift, lambda _: grown(0, 4000), 4000)
    before = chunks()
    columns.fill_columns(swift, lambda _: grown(4000, 4100), 4100)
    changed = {name for name, inode in chunks().items() if before.get(name) != inode}
    assert set(before) == {"c.0", "c.1", "c.2", "c.3"}
    assert changed == {"c.3", "c.4"}


@pytest.mark.parametrize("what", ["damaged", "missing", "other schema", "apart"])
def test_columns_that_cannot_be_added_to_are_made_anew(
    swift: Archive, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    columns.fill_columns(swift, lambda _: grown(0, 50), 50)
    chunk = swift.path / "labels/cheap/forces/c.0.0"
    match what:
        case "damaged":
            chunk.write_bytes(chunk.read_bytes()[:-9] + b"x" * 9)
        case "missing":
            chunk.unlink()
        case "other schema":
            monkeypatch.setattr(columns, "VERSION", 99)
            monkeypatch.setattr("alloop.store.column_changes.VERSION", 99)
        case "apart":
            new = {"scores": rows_of("scores", 50, 55)}
            columns.fill_columns(swift, lambda _: new, 55)
    asked: list[int] = []

    def rows(after: int) -> Any:
        asked.append(after)
        return grown(max(after, 0), 60)

    columns.fill_columns(swift, rows, 60)
    assert asked[-1] == -1
    assert_holds(swift.path, 60)


def test_the_last_walkers_outlive_one_write_for_who_still_reads(
    archive: Archive,
) -> None:
    fill(archive, 5)
    reader = read(archive.path)["walkers/00000005"]
    fill(archive, 6)
    assert np.array_equal(reader["step"][:], tables(5)["walkers"]["step"])
    assert list(read(archive.path)["walkers"]) == ["00000006"]
    fill(archive, 7)
    folders = sorted(p.name for p in (archive.path / "walkers").glob("0*"))
    assert folders == ["00000006", "00000007"]


@pytest.mark.parametrize("what", ["zarr.json", "c.0"])
def test_a_lost_or_damaged_file_is_healed(archive: Archive, what: str) -> None:
    fill(archive, 50)
    (archive.path / "structures" / "id" / what).write_bytes(b"x")
    shutil.rmtree(archive.path / "scores")
    columns.clear_columns(archive)
    fill(archive, 50)
    assert_holds(archive.path, 50)
    assert_holds(archive.path, 50, use_consolidated=False)


def test_a_damaged_last_chunk_does_not_hinder_the_next_write(archive: Archive) -> None:
    fill(archive, 50)
    for chunk in (archive.path / "labels").rglob("c.0*"):
        chunk.write_bytes(b"x")
    fill(archive, 60)
    assert_holds(archive.path, 60)


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns without any journal are continued, for tests of columns alone."""
    monkeypatch.setattr(Archive, "_set_aside", lambda _: None)


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_whatever_fails_a_reader_sees_one_moment(
    archive: Archive, codec: Codec, late: bool
) -> None:
    names = ("scores", "walkers")
    fill(archive, 40, names=names)
    archive.close()
    for fail_at in range(0, 200, 5):
        files = FailingFileSystem(fail_at, late=late)
        with Archive.open(archive.path, codec, "w", files=files) as writer:
            try:
                fill(writer, 50, names=names)
            except StoreError:
                pass
            else:
                break
        root = read(archive.path)
        rows = root["scores"].attrs["rows"]
        assert rows in (40, 50)
        assert list(root["walkers"]) == [f"{rows:08d}"]
        for key in schema.table_columns("scores"):
            assert np.array_equal(root["scores"][key][:], tables(rows)["scores"][key])
    assert read(archive.path)["scores"].attrs["rows"] == 50


@pytest.mark.usefixtures("unrecorded")
def test_a_reader_beside_a_killed_writer_never_sees_half(
    archive: Archive, fork_server: Callable[[str], Any], tmp_path: Path
) -> None:
    archive.close()
    path, done = archive.path, Path(f"{archive.path}.done")
    done.touch()
    server, rng = fork_server(WRITER), np.random.default_rng(3)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    for kill in range(14):
        pid = server.spawn(path)
        if kill % 7 == 6:
            before = done.stat().st_size
            while done.stat().st_size == before:
                time.sleep(0.002)
        time.sleep(rng.uniform(0.01, 0.25))
        server.kill(pid)
    out, _ = reader.communicate("stop\n")
    assert reader.returncode == 0
    reads, rows = map(int, out.split())
    written = [int(line) for line in done.read_text().split()]
    assert reads >= 3
    assert len(written) >= 2
    assert rows >= written[-1]
    with Archive.open(path, Codec([]), "w") as again:
        fill(again, rows + 10000)
    assert_holds(path, rows + 10000)
