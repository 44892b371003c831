"""A store is whole or absent, refuses what is not its own, and loses nothing."""

import contextlib
import errno
import json
import random
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alloop.core.errors import DamagedError, LockedError, StoreError
from alloop.loop.commands import Stop
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.root import FORMAT
from benchmarks.durability.file_systems import FailingFileSystem

ATTRS = {"name": "water", "seed": 7, "levels": {"cheap": "HF/STO-3G"}}
WRITER = """
import os, sys
from pathlib import Path
from alloop.core.records import Walker
from alloop.core.frame import Frame
import numpy as np
from alloop.loop.commands import Stop
from alloop.store.archive import Archive
from alloop.store.codec import Codec
def work(path):
    with Archive.open(path, Codec([]), "w") as archive:
        acks = os.open(path + ".acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        rng = np.random.default_rng(archive.last() + 1)
        while True:
            frame = Frame(np.ones(30, dtype=int), rng.normal(size=(30, 3)))
            walker = Walker(archive.last() + 1, 0, frame, rng.normal(size=(30, 3)))
            os.write(acks, f"{archive.append(walker)} {frame.id}\\n".encode())
"""


def test_records_come_back_to_writer_and_reader(
    archive: Archive, codec: Codec, turn: Callable[[int], Any]
) -> None:
    before = time.time()
    assert [archive.append(turn(i)) for i in range(3)] == [0, 1, 2]
    with Archive.open(archive.path, codec) as reader:
        for seq, (stored, mine) in enumerate(
            zip(reader.records(), archive.records(), strict=True)
        ):
            assert stored.seq == mine.seq == seq
            assert before <= stored.time <= time.time()
            walker, label = stored.record
            assert walker.frame == turn(seq)[0].frame
            assert np.array_equal(label.forces, turn(seq)[1].forces)
        assert [seq for seq, _, _ in reader.records(2)] == [2]
        assert reader.last() == 2
        archive.append(turn(3))
        assert reader.last() == 3


def test_a_store_says_what_it_is(archive: Archive, codec: Codec) -> None:
    with Archive.open(archive.path, codec) as reader:
        assert reader.attrs["alloop_format"] == FORMAT
        assert reader.attrs["config"] == "name: water\n"
    assert zarr.open_group(archive.path, mode="r").attrs["name"] == "water"


def test_a_store_reopened_for_writing_goes_on_where_it_was(
    archive: Archive, codec: Codec, turn: Callable[[int], Any]
) -> None:
    archive.append(turn(0))
    archive.close()
    with Archive.open(archive.path, codec, "w") as again:
        assert again.append(turn(1)) == 1


@pytest.mark.parametrize("consolidated", [None, False])
def test_plain_zarr_lists_a_store_without_a_warning(
    archive: Archive, turn: Callable[[int], Any], consolidated: bool | None
) -> None:
    archive.append(turn(0))
    archive.put_model("ab12", b"weights")
    plain = zarr.open_group(archive.path, mode="r", use_consolidated=consolidated)
    members = dict(plain.members(max_depth=None))
    assert set(members) == {"journal", "models", "models/ab12"}
    assert bytes(plain["models/ab12"][:]) == b"weights"
    assert plain["journal"].shape == (0,)


def test_a_second_driver_is_refused_and_a_reader_is_not(
    archive: Archive, codec: Codec
) -> None:
    with pytest.raises(LockedError, match="in use by process"):
        Archive.open(archive.path, codec, "w")
    Archive.open(archive.path, codec).close()
    archive.close()
    Archive.open(archive.path, codec, "w").close()


def test_a_reader_cannot_write(archive: Archive, codec: Codec) -> None:
    with Archive.open(archive.path, codec) as reader:
        with pytest.raises(ValueError, match="not open for writing"):
            reader.append(None)
        with pytest.raises(ValueError, match="not open for writing"):
            reader.put_model("ab", b"")


def test_a_reader_changes_no_file(archive: Archive, codec: Codec) -> None:
    archive.append(None)
    archive.seal()
    archive.append(None)
    archive.put_model("m", b"weights")
    archive.put_fold("state", "1", 1, b"fold")
    files = FailingFileSystem(0)
    before = {p: p.stat().st_mtime_ns for p in archive.path.rglob("*")}
    with Archive.open(archive.path, codec, files=files) as reader:
        assert [stored.record for stored in reader.records()] == [None, None]
        assert reader.model("m") == b"weights"
        assert reader.fold("state", "1") == (1, b"fold")
    assert files.count == 0
    assert before == {p: p.stat().st_mtime_ns for p in archive.path.rglob("*")}


def test_a_newer_format_is_refused(archive: Archive, codec: Codec) -> None:
    file = archive.path / "zarr.json"
    node = json.loads(file.read_text())
    node["attributes"]["alloop_format"] = 7
    file.write_text(json.dumps(node))
    with pytest.raises(
        StoreError, match=r"holds format 7, this alloop reads up to 3; upgrade alloop$"
    ):
        Archive.open(archive.path, codec)


def test_what_is_not_a_store_is_refused(tmp_path: Path, codec: Codec) -> None:
    with pytest.raises(StoreError, match=r"nothing\.zarr does not exist"):
        Archive.open(tmp_path / "nothing.zarr", codec)
    with pytest.raises(StoreError, match="is not an alloop store"):
        Archive.open(tmp_path, codec, "w")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match=r"other\.zarr is not an alloop store"):
        Archive.open(tmp_path / "other.zarr", codec)
    for text in ("[]", '{"attributes": []}'):
        (tmp_path / "other.zarr" / "zarr.json").write_text(text)
        with pytest.raises(StoreError, match=r"other\.zarr is not an alloop store"):
            Archive.open(tmp_path / "other.zarr", codec)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file is not an alloop store"):
        Archive.open(tmp_path / "file", codec)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other.zarr"]


def test_a_damaged_root_is_named(archive: Archive, codec: Codec) -> None:
    (archive.path / "zarr.json").write_text("{")
    with pytest.raises(DamagedError, match=r"zarr\.json is not JSON"):
        Archive.open(archive.path, codec)


def test_a_store_is_not_made_where_something_is(
    archive: Archive, tmp_path: Path, codec: Codec
) -> None:
    (tmp_path / "file").write_text("x")
    for taken in (archive.path, tmp_path / "file"):
        with pytest.raises(StoreError, match="exists already; choose another place"):
            Archive.create(taken, attrs=ATTRS, codec=codec)
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        Archive.create(tmp_path / "file" / "s.zarr", attrs=ATTRS, codec=codec)
    (tmp_path / "empty").mkdir()
    Archive.create(tmp_path / "empty", attrs=ATTRS, codec=codec).close()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "no space left to write .* free some and run again"),
        (errno.EACCES, "cannot be written .* choose another place"),
        (errno.EROFS, "cannot be written .* choose another place"),
    ],
    ids=["full", "forbidden", "read-only"],
)
def test_a_store_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, codec: Codec, code: int, sentence: str
) -> None:
    for fail_at in range(20):
        files = FailingFileSystem(fail_at, code)
        path = tmp_path / "runs" / "deep" / "s.zarr"
        try:
            Archive.create(path, attrs=ATTRS, codec=codec, files=files).close()
        except StoreError as error:
            said = str(error)
        else:
            break
        assert re.search(sentence, said)
        assert not list(tmp_path.iterdir())
    assert fail_at == files.count
    assert path.exists()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_failed_append_stops_the_writer_and_loses_nothing(
    archive: Archive,
    codec: Codec,
    turn: Callable[[int], Any],
    late: bool,
) -> None:
    archive.close()
    acknowledged = -1
    for fail_at in range(10):
        files = FailingFileSystem(fail_at, late=late)
        with Archive.open(archive.path, codec, "w", files=files) as writer:
            with contextlib.suppress(StoreError):
                acknowledged = writer.append(turn(0))
                break
            with pytest.raises(StoreError, match="open it again to go on"):
                writer.append(turn(0))
        with Archive.open(archive.path, codec) as reader:
            assert [s.seq for s in reader.records()] == list(range(reader.last() + 1))
            assert reader.last() >= acknowledged
    assert files.count <= fail_at


def test_what_cannot_be_stored_does_not_stop_the_writer(
    archive: Archive, turn: Callable[[int], Any]
) -> None:
    with pytest.raises(TypeError):
        archive.append(object())
    assert archive.append(turn(0)) == 0


def test_a_file_size_limit_is_a_sentence_and_the_store_goes_on(
    archive: Archive, turn: Callable[[int], Any]
) -> None:
    """The kernel itself refuses the write half-way, as it does on a full disk."""
    archive.append(turn(0))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(StoreError, match="no space left to write"):
            archive.append(turn(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [s.seq for s in archive.records()] == [0]
    assert not list((archive.path / "journal" / "staging").iterdir())


def test_a_missing_record_stops_a_writer_at_the_door(
    archive: Archive, codec: Codec, turn: Callable[[int], Any], loosened: Any
) -> None:
    for i in range(3):
        archive.append(turn(i))
    archive.close()
    loosened(archive.path / "journal")
    (archive.path / "journal" / "00000001").unlink()
    with pytest.raises(DamagedError, match=r"record 1 of .* is missing"):
        Archive.open(archive.path, codec, "w")
    reader = Archive.open(archive.path, codec)
    with pytest.raises(DamagedError, match="00000001 is missing"):
        list(reader.records())
    (archive.path / "journal" / "00000001").write_bytes(b"")
    with pytest.raises(DamagedError, match="00000001 does not match"):
        list(reader.records())
    Archive.open(archive.path, codec, "w").close()


def test_an_unknown_record_names_its_number(
    archive: Archive,
) -> None:
    archive.append(Stop("done"))
    with pytest.raises(StoreError, match=r"record 0 of .*s\.zarr: it holds Stop"):
        list(Archive.open(archive.path, Codec([])).records())


@pytest.mark.parametrize("size", [0, 1, 4 * 2**20, 4 * 2**20 + 1])
def test_a_model_comes_back_byte_for_byte(archive: Archive, size: int) -> None:
    blob = random.Random(size).randbytes(size)
    archive.put_model("m", blob)
    assert archive.model("m") == blob
    assert archive.model_ids() == ("m",)


def test_a_model_is_written_once(archive: Archive) -> None:
    archive.put_model("m", b"first")
    archive.put_model("m", b"second")
    assert archive.model("m") == b"first"
    with pytest.raises(StoreError, match="holds no model n; it holds m"):
        archive.model("n")
    with pytest.raises(ValueError, match="letters and digits"):
        archive.put_model("../m", b"")


def test_a_damaged_model_is_named(archive: Archive) -> None:
    archive.put_model("m", b"weights")
    chunk = archive.path / "models" / "m" / "c.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"model m in .* does not match"):
        archive.model("m")
    chunk.unlink()
    with pytest.raises(DamagedError, match="model m"):
        archive.model("m")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_model_is_whole_or_absent_whatever_fails(
    archive: Archive, codec: Codec, late: bool
) -> None:
    archive.close()
    for fail_at in range(30):
        files = FailingFileSystem(fail_at, late=late)
        with Archive.open(archive.path, codec, "w", files=files) as writer:
            try:
                writer.put_model("m", b"weights")
            except StoreError:
                found = writer.model_ids()
                assert all(writer.model(each) == b"weights" for each in found)
            else:
                break
    assert "models/m" in zarr.open_group(archive.path, mode="r")


def test_twenty_kills_lose_no_acknowledged_record(
    archive: Archive, fork_server: Callable[[str], Any]
) -> None:
    archive.close()
    acks = Path(f"{archive.path}.acks")
    acks.touch()
    rng, server = random.Random(1), fork_server(WRITER)
    for _ in range(24):
        size = acks.stat().st_size
        pid = server.spawn(archive.path)
        while acks.stat().st_size == size:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        server.kill(pid)
    acknowledged = [line.split() for line in acks.read_text().splitlines()]
    stored = list(Archive.open(archive.path, Codec([])).records())
    assert [int(seq) for seq, _ in acknowledged] == sorted(
        {int(seq) for seq, _ in acknowledged}
    )
    for seq, frame in acknowledged:
        assert stored[int(seq)].record.frame.id == frame
    assert [walker.record.index for walker in stored] == list(range(len(stored)))
