"""Records are committed once, in order, and damage has a name."""

from pathlib import Path
from typing import Any

import pytest

from alloop.core.errors import DamagedError, LockedError
from alloop.store.codec import EncodedRecord
from alloop.store.journal import STAGING, Journal
from alloop.store.packs import JournalListing
from benchmarks.durability.file_systems import FailingFileSystem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "journal" / STAGING).mkdir(parents=True)
    return tmp_path / "journal"


def filled(folder: Path, count: int) -> Journal:
    journal = Journal(folder, writable=True)
    for seq in range(count):
        journal.append(seq, EncodedRecord({"#map": {"n": seq}}, ()), 100.0 + seq)
    return journal


def numbers(journal: Journal, start: int = 0) -> list[int]:
    return [entry.record.tree["#map"]["n"] for entry in journal.iterate(start)]


def test_records_come_back_in_order_with_number_and_time(folder: Path) -> None:
    journal = filled(folder, 12)
    assert numbers(journal) == list(range(12))
    assert numbers(journal, 9) == [9, 10, 11]
    assert journal.last() == 11
    assert (journal.read(5).seq, journal.read(5).time) == (5, 105.0)


def test_an_empty_journal_has_no_last_record(folder: Path) -> None:
    assert Journal(folder).last() == -1
    assert numbers(Journal(folder)) == []


def test_a_number_is_taken_only_once(folder: Path) -> None:
    first, second = filled(folder, 3), Journal(folder, writable=True)
    first.append(3, EncodedRecord(1, ()), 0.0)
    with pytest.raises(LockedError, match=r"record 3 .* was written by another driver"):
        second.append(3, EncodedRecord(2, ()), 0.0)
    assert first.read(3).record.tree == 1
    assert not list((folder / STAGING).iterdir())


def test_records_lie_in_one_file_named_by_the_first(folder: Path) -> None:
    filled(folder, 3)
    assert (folder / "00000000-").is_file()


def test_what_a_killed_writer_left_is_swept(folder: Path) -> None:
    (folder / STAGING / "half").write_bytes(b"alloop01")
    (folder / STAGING / "model").mkdir()
    assert numbers(Journal(folder)) == []
    assert len(list((folder / STAGING).iterdir())) == 2
    Journal(folder, writable=True)
    assert not list((folder / STAGING).iterdir())


def test_a_damaged_record_is_named(folder: Path, loosened: Any) -> None:
    journal = filled(folder, 5)
    loosened(folder)
    path = folder / "00000002"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="journal/00000002 does not match"):
        numbers(journal)
    assert numbers(journal, 3) == [3, 4]


@pytest.mark.parametrize("name", ["00000000", "00000002"])
def test_an_empty_record_is_damage(folder: Path, name: str, loosened: Any) -> None:
    journal = filled(folder, 3)
    loosened(folder)
    (folder / name).write_bytes(b"")
    with pytest.raises(DamagedError, match=name):
        numbers(journal)


def test_a_missing_record_is_named(folder: Path, loosened: Any) -> None:
    journal = filled(folder, 5)
    loosened(folder)
    (folder / "00000002").unlink()
    with pytest.raises(DamagedError, match="journal/00000002 is missing"):
        numbers(journal)
    assert journal.missing() == [2]


def test_a_record_under_another_number_is_damage(folder: Path, loosened: Any) -> None:
    journal = filled(folder, 3)
    loosened(folder)
    (folder / "00000001").unlink()
    (folder / "00000001").write_bytes((folder / "00000002").read_bytes())
    with pytest.raises(DamagedError, match="00000001 holds record 2"):
        numbers(journal)


def test_a_reader_cannot_append(folder: Path) -> None:
    with pytest.raises(ValueError, match="for reading"):
        Journal(folder).append(0, EncodedRecord(1, ()), 0.0)


def test_a_reader_goes_on_into_what_is_appended_meanwhile(folder: Path) -> None:
    journal = filled(folder, 2)
    reading = Journal(folder).iterate()
    assert next(reading).seq == 0
    journal.append(2, EncodedRecord(0, ()), 0.0)
    assert [entry.seq for entry in reading] == [1, 2]


def test_a_reader_is_not_fooled_by_a_record_that_came_between(
    folder: Path, loosened: Any
) -> None:
    """A listing may show record 1 when record 0 was not yet there a moment before."""
    filled(folder, 2)
    loosened(folder)
    hidden = folder / "00000000"
    aside = hidden.rename(folder.parent / "aside")

    class Late(Journal):
        def listing(self) -> JournalListing:
            found = super().listing()
            if aside.exists():
                aside.rename(hidden)
            return found

    assert numbers(Late(folder)) == [0, 1]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_whatever_operation_fails_the_record_is_whole_or_absent(
    folder: Path, late: bool
) -> None:
    seq = 0
    for fail_at in range(10):
        files: Any = FailingFileSystem(fail_at, late=late)
        journal = Journal(folder, writable=True, files=files)
        try:
            journal.append(seq, EncodedRecord({"#map": {"n": seq}}, ()), 0.0)
        except OSError:
            seq = Journal(folder).last() + 1
        else:
            assert files.count <= fail_at
            break
        assert numbers(Journal(folder)) == list(range(seq))
    else:
        pytest.fail("no append without fault")
