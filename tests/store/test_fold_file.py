"""A fold saves time and is never believed against the journal."""

import contextlib
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.core.errors import StoreError
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.doctor import verify_store
from alloop.store.journal import Journal
from alloop.store.record import pack_record, unpack_record
from benchmarks.durability.file_systems import FailingFileSystem


@pytest.fixture
def filled(archive: Archive, turn: Callable[[int], Any]) -> Archive:
    for i in range(6):
        archive.append(turn(i))
    return archive


def kept(archive: Archive) -> Path:
    return archive.path / "journal" / "folds" / "state"


def test_a_fold_comes_back_to_writer_and_reader(filled: Archive, codec: Codec) -> None:
    assert filled.fold("state", "v1") is None
    for seq, blob in [(3, b"older"), (5, b"\0newer"), (5, b"")]:
        filled.put_fold("state", "v1", seq, blob)
        assert filled.fold("state", "v1") == (seq, blob)
        with Archive.open(filled.path, codec) as reader:
            assert reader.fold("state", "v1") == (seq, blob)
    assert [stored.seq for stored in filled.records(4)] == [4, 5]


def test_a_fold_of_other_code_counts_as_absent(filled: Archive) -> None:
    filled.put_fold("state", "v1", 3, b"x")
    assert filled.fold("state", "v2") is None
    assert filled.fold("other", "v1") is None
    with pytest.raises(ValueError, match="letters and digits"):
        filled.fold("../state", "v1")


def test_a_fold_survives_the_sealing_of_its_record(filled: Archive) -> None:
    filled.put_fold("state", "v1", 3, b"x")
    filled.seal()
    assert filled.fold("state", "v1") == (3, b"x")


def test_a_damaged_fold_counts_as_absent_and_doctor_names_it(
    filled: Archive, codec: Codec
) -> None:
    filled.put_fold("state", "v1", 3, b"state" * 20)
    whole = kept(filled).read_bytes()
    rng = random.Random(4)
    for _ in range(20):
        bit = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        kept(filled).write_bytes(bytes(damaged))
        assert filled.fold("state", "v1") is None
    kept(filled).write_bytes(b"")
    assert filled.fold("state", "v1") is None
    (finding,) = verify_store(filled.path, codec)
    assert (finding.where, "made anew" in finding.advice) == ("fold state", True)
    filled.put_fold("state", "v1", 4, b"anew")
    assert filled.fold("state", "v1") == (4, b"anew")


def test_a_fold_of_another_journal_counts_as_absent(
    filled: Archive, turn: Callable[[int], Any], tmp_path: Path, codec: Codec
) -> None:
    filled.put_fold("state", "v1", 5, b"x")
    other = tmp_path / "other.zarr"
    with Archive.create(other, attrs={}, codec=codec) as made:
        for i in range(5):
            made.append(turn(i))
        (other / "journal" / "folds").mkdir()
        shutil.copy(kept(filled), kept(made))
        assert made.fold("state", "v1") is None  # it has no record 5
        made.append(turn(77))
        assert made.fold("state", "v1") is None  # it has another one


def test_a_fold_of_a_journal_altered_before_its_last_record_counts_as_absent(
    filled: Archive, turn: Callable[[int], Any], tmp_path: Path, codec: Codec
) -> None:
    filled.put_fold("state", "v1", 5, b"x")
    other = tmp_path / "other.zarr"
    with Archive.create(other, attrs={}, codec=codec) as made:
        for i in (0, 1, 77, 3, 4, 5):
            made.append(turn(i))
        made.put_fold("state", "v1", 5, b"y")
        shutil.copy(kept(filled), kept(made))
        assert made.fold("state", "v1") is None


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes this another user, or another machine; returns the key's file to be."""

    def move() -> Path:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another home"))
        return tmp_path / "another home" / "alloop" / "fold-key"

    return move


def test_the_fold_of_somebody_else_is_made_anew(
    filled: Archive, elsewhere: Callable[[], Path]
) -> None:
    filled.put_fold("state", "v1", 5, b"x")
    key = elsewhere()
    assert filled.fold("state", "v1") is None
    assert filled.fold("state", "v1", foreign=True) == (5, b"x")
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert key.parent.stat().st_mode & 0o777 == 0o700
    filled.put_fold("state", "v1", 5, b"y")
    assert filled.fold("state", "v1") == (5, b"y")
    assert list(key.parent.iterdir()) == [key]


def test_a_fold_without_a_seal_or_with_another_content_counts_as_absent(
    filled: Archive,
) -> None:
    filled.put_fold("state", "v1", 5, b"x")
    header, arrays = unpack_record(kept(filled).read_bytes(), "")
    forged = np.frombuffer(b"z", np.uint8)
    older = {key: value for key, value in header.items() if key != "seal"}
    for altered, blob in ((header, forged), (older, arrays[0])):
        kept(filled).write_bytes(pack_record(altered, [blob]))
        assert filled.fold("state", "v1") is None
    kept(filled).write_bytes(pack_record(header, arrays))
    assert filled.fold("state", "v1") == (5, b"x")


def test_without_a_private_key_no_fold_is_saved_or_believed(
    filled: Archive, elsewhere: Callable[[], Path]
) -> None:
    key = elsewhere()
    filled.put_fold("state", "v1", 5, b"x")
    key.chmod(0o644)  # others may have read it
    assert filled.fold("state", "v1") is None
    filled.put_fold("state", "v1", 4, b"y")
    key.chmod(0o600)
    assert filled.fold("state", "v1") == (5, b"x")
    key.unlink()
    key.parent.rmdir()
    key.parent.parent.rmdir()
    key.parent.parent.write_text("no folder can be made here")
    filled.put_fold("state", "v1", 4, b"y")
    assert filled.fold("state", "v1") is None
    assert filled.fold("state", "v1", foreign=True) == (5, b"x")


def test_the_fingerprint_is_that_of_the_records_wherever_they_lie(
    filled: Archive, turn: Callable[[int], Any], loosened: Callable[[Path], None]
) -> None:
    journal = Journal(filled.path / "journal")
    digests = [entry.digest for entry in journal.iterate()]
    expected = [
        hashlib.sha256(b"".join(digests[: last + 1])).hexdigest() for last in range(6)
    ]

    def found() -> list[str]:
        return [journal.fingerprint(last) for last in range(6)]

    assert found() == expected  # in a tail
    filled.seal()
    assert found() == expected  # in a pack
    (pack,) = (filled.path / "journal").glob("0*-0*")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:20] + b"x" + whole[21:])
    assert found() == expected  # in one whose index is damaged
    pack.write_bytes(whole)
    filled.append(turn(6))
    loosened(filled.path / "journal")
    assert found() == expected
    assert journal.fingerprint(6) not in expected


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_whatever_fails_a_fold_is_the_older_or_the_newer(
    filled: Archive, codec: Codec, late: bool
) -> None:
    filled.put_fold("state", "v1", 2, b"older")
    filled.close()
    for fail_at in range(8):
        files = FailingFileSystem(fail_at, late=late)
        with Archive.open(filled.path, codec, "w", files=files) as writer:
            with contextlib.suppress(StoreError):
                writer.put_fold("state", "v1", 4, b"newer")
            found = writer.fold("state", "v1")
        assert found in ((2, b"older"), (4, b"newer"))
        if files.count <= fail_at:
            assert found == (4, b"newer")
            return
    pytest.fail("no write without fault")
