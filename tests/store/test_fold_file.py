"""A fold saves time and is never believed against the journal."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alloop.core.errors import StoreError
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.doctor import verify_store
from alloop.testing.faults.file_systems import FailingFileSystem


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
