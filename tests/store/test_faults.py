"""Whatever dies, and whenever: what was committed stays, in order, each record once."""

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alloop.core.errors import StoreError
from alloop.store import columns, schema
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.doctor import verify_store
from alloop.store.set_aside import set_aside_folders
from benchmarks.durability.file_systems import (
    DyingFileSystem,
    ProcessDeath,
    UnsyncedFileSystem,
    VolatileFileSystem,
)

pytestmark = pytest.mark.usefixtures("uncovered")
RECORDS = 11
CODEC = Codec([])
WRITER = """
import os
import numpy as np
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.codec import Codec
packs.RECORDS = 6
def work(path):
    with Archive.open(path, Codec([]), "w") as archive:
        acks = os.open(path + ".acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        rng = np.random.default_rng(archive.last() + 1)
        while True:
            index = archive.last() + 1
            frame = Frame(np.ones(3, dtype=int), rng.normal(size=(3, 3)))
            walker = Walker(index, 0, frame, rng.normal(size=(3, 3)))
            os.write(acks, f"{archive.append(walker)} {frame.id}\\n".encode())
            if index % 5 == 4:
                archive.seal()
"""
READER = """
import select, sys
from alloop.store.archive import Archive
from alloop.store.codec import Codec
print("ready", flush=True)
reads = known = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with Archive.open(sys.argv[1], Codec([])) as reader:
        found = [stored.record.index for stored in reader.records()]
        assert found == list(range(len(found))), "a gap, or a record twice"
        assert len(found) >= known, "the journal went back"
        last = reader.last()
        assert last >= len(found) - 1, "the journal went back"
        known, reads = len(found), reads + 1
print(reads, known)
"""


def work(path: Path, files: Any, turn: Callable[[int], Any], acks: list[int]) -> None:
    """Bring the store to its end: records, packs on the way, folds, two models."""
    if not path.exists():
        Archive.create(path, attrs={}, codec=CODEC, files=files).close()
    with Archive.open(path, CODEC, "w", files=files) as archive:
        for index in range(archive.last() + 1, RECORDS):
            acks.append(archive.append(turn(index)))
            if index % 3 == 0:
                archive.seal()
            if index == RECORDS // 2:
                archive.put_fold("state", "v", index, bytes([index]))
                archive.put_model("m", b"weights")
        archive.seal()


def held(path: Path) -> list[int]:
    """The records of a store, checked to be those that were given."""
    if not path.exists():
        return []
    with Archive.open(path, CODEC) as reader:
        fold = reader.fold("state", "v")
        assert fold is None or fold == (fold[0], bytes([fold[0]]))
        assert all(reader.model(each) == b"weights" for each in reader.model_ids())
        records = [stored.record for stored in reader.records()]
    for walker, label in records:
        assert label.energy == -75.0 - walker.index
    return [walker.index for walker, _ in records]


@pytest.mark.usefixtures("small_packs")
def test_dead_before_any_operation_the_store_goes_on_as_if_nothing_had_been(
    tmp_path: Path, turn: Any
) -> None:
    for at in range(1000):
        path, acks, files = tmp_path / f"{at}.zarr", list[int](), DyingFileSystem(at)
        try:
            work(path, files, turn, acks)
        except ProcessDeath:
            pass
        else:
            break
        assert held(path)[: len(acks)] == acks
        assert len(held(path)) <= len(acks) + 1
        work(path, UnsyncedFileSystem(), turn, acks)
        assert held(path) == list(range(RECORDS))
        assert verify_store(path, CODEC) == []
        loose = [p for p in (path / "journal").iterdir() if p.name.isdigit()]
        assert not loose
    else:
        pytest.fail("it never ends")
    assert at > 80


@pytest.mark.usefixtures("small_packs")
def test_no_loss_of_power_takes_what_was_acknowledged(
    tmp_path: Path, turn: Any
) -> None:
    """After any operation, of the names not yet synced, any may be gone."""
    rng = random.Random(5)
    (tmp_path / "disk").mkdir()
    path, acks = tmp_path / "disk" / "s.zarr", list[int]()
    losses = 0

    def lose() -> None:
        nonlocal losses
        left = tmp_path / f"left{losses}"
        files.top.survive(left, rng)
        losses += 1
        found = held(left / "s.zarr")
        assert found[: len(acks)] == acks
        assert len(found) <= len(acks) + 1
        if rng.random() < 0.2 and (left / "s.zarr").exists():
            work(left / "s.zarr", UnsyncedFileSystem(), turn, [])
            assert held(left / "s.zarr") == list(range(RECORDS))
            assert verify_store(left / "s.zarr", CODEC) == []

    files = VolatileFileSystem(tmp_path / "disk", lose)
    work(path, files, turn, acks)
    assert losses > 80


def test_a_store_that_forgot_to_sync_would_be_caught(tmp_path: Path, turn: Any) -> None:
    """The model of power loss can fail: here the folder's sync is left out."""

    class Careless(VolatileFileSystem):  # type: ignore[misc]
        def sync(self, folder: Path) -> None:
            if folder.name != "journal":
                super().sync(folder)

    (tmp_path / "disk").mkdir()
    files = Careless(tmp_path / "disk", lambda: None)
    work(tmp_path / "disk" / "s.zarr", files, turn, [])
    for seed in range(20):
        files.top.survive(tmp_path / f"{seed}", random.Random(seed))
    assert not all(intact(tmp_path / f"{seed}" / "s.zarr") for seed in range(20))


def intact(path: Path) -> bool:
    try:
        return held(path) == list(range(RECORDS))
    except StoreError:
        return False


def test_killed_while_sealing_beside_a_reader_no_record_is_lost_or_twice(
    archive: Archive, fork_server: Callable[[str], Any]
) -> None:
    archive.close()
    path, acks = archive.path, Path(f"{archive.path}.acks")
    acks.touch()
    rng, server = random.Random(2), fork_server(WRITER)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    for _ in range(20):
        size = acks.stat().st_size
        pid = server.spawn(path)
        while acks.stat().st_size == size:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.06))
        server.kill(pid)
    out, _ = reader.communicate("stop\n")
    assert reader.returncode == 0
    reads, known = map(int, out.split())
    stored = [s.record for s in Archive.open(path, CODEC).records()]
    assert (reads >= 3, known) == (True, len(stored))
    assert [walker.index for walker in stored] == list(range(len(stored)))
    for line in acks.read_text().splitlines():
        seq, frame = line.split()
        assert stored[int(seq)].frame.id == frame
    Archive.open(path, CODEC, "w").close()
    assert verify_store(path, CODEC) == []


def test_a_clock_that_jumps_back_changes_no_order(
    archive: Archive, turn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter([5e9, 1e9, -1.0, 2e9])
    monkeypatch.setattr("alloop.store.archive.time.time", lambda: next(hours))
    for i in range(4):
        archive.append(turn(i))
    archive.seal()
    found = [(s.seq, s.time, s.record[0].index) for s in archive.records()]
    assert found == [(0, 5e9, 0), (1, 1e9, 1), (2, -1.0, 2), (3, 2e9, 3)]


def asked(begin: int, end: int) -> dict[str, Any]:
    """Rows `begin` to `end` of a table, each a function of its number."""
    rows = np.arange(begin, end)
    return {key: rows % 200 for key in schema.table_columns("selections")}


def add(path: Path, files: Any, begin: int, end: int) -> None:
    with Archive.open(path, CODEC, "w", files=files) as writer:
        columns.fill_columns(writer, lambda _: {"selections": asked(begin, end)}, end)


def test_dead_before_any_operation_of_a_column_switch_readers_see_one_moment(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Archive, "_set_aside", lambda _: None)  # columns alone
    archive.close()
    add(archive.path, UnsyncedFileSystem(), 0, 1000)
    for at in range(200):
        rows = 1000 + 30 * at
        with contextlib.suppress(ProcessDeath):
            add(archive.path, files := DyingFileSystem(at), rows, rows + 30)
        table = zarr.open_group(archive.path, mode="r")["selections"]
        seen = table.attrs["rows"]
        assert seen in (rows, rows + 30)
        for key, array in table.arrays():
            assert np.array_equal(array[:], asked(0, seen)[key])
        if files.left:
            break
        if seen == rows:
            add(archive.path, UnsyncedFileSystem(), rows, rows + 30)
    assert at > 20


def test_dead_while_columns_are_set_aside_they_are_whole_in_one_place(
    archive: Archive,
) -> None:
    archive.close()
    add(archive.path, UnsyncedFileSystem(), 0, 50)
    before = archive.path.with_name("before")
    archive.path.rename(before)
    for at in range(60):
        shutil.rmtree(archive.path, ignore_errors=True)
        shutil.copytree(before, archive.path)
        files = DyingFileSystem(at)
        with contextlib.suppress(ProcessDeath):
            Archive.open(archive.path, CODEC, "w", files=files).release()
        Archive.open(archive.path, CODEC, "w", files=UnsyncedFileSystem()).release()
        (part,) = set_aside_folders(archive.path)
        shown = zarr.open_group(part, mode="r")["selections"]
        for key, array in shown.arrays():
            assert np.array_equal(array[:], asked(0, 50)[key])
        assert columns.appendable_record(archive.path) == -1
        if files.left:
            break
    assert at > 4
