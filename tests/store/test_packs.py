"""Old records lie in packs, and nobody who reads ever misses one or meets it twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import zarr

from alloop.core.errors import DamagedError, LockedError, StoreError
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.doctor import verify_store
from alloop.store.journal import STAGING, Journal
from alloop.store.packs import RecordSpan, list_journal, read_pack
from benchmarks.durability.file_systems import FailingFileSystem, UnsyncedFileSystem

pytestmark = pytest.mark.usefixtures("small_packs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "journal" / STAGING).mkdir(parents=True)
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder, writable=True, files=UnsyncedFileSystem())


def fill(journal: Journal, begin: int, end: int) -> None:
    for seq in range(begin, end):
        journal.append(seq, EncodedRecord({"#map": {"n": seq}}, ()), 100.0 + seq)


def numbers(journal: Journal, start: int = 0) -> list[int]:
    return [entry.record.tree["#map"]["n"] for entry in journal.iterate(start)]


def names(folder: Path) -> list[str]:
    files = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in files if name[0].isdigit())


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(bytes(data))


def test_sealed_records_come_back_as_they_were(journal: Journal, folder: Path) -> None:
    fill(journal, 0, 10)
    before = [(x.seq, x.time, x.digest) for x in journal.iterate()]
    journal.seal()
    assert " ".join(names(folder)) == (
        "00000000-00000003 00000004-00000007 00000008-00000009"
    )
    assert [(x.seq, x.time, x.digest) for x in journal.iterate()] == before
    assert numbers(journal, 6) == [6, 7, 8, 9]
    assert (journal.read(5).seq, journal.last(), journal.missing()) == (5, 9, [])


def test_a_pack_holds_the_bytes_of_the_loose_files(
    journal: Journal, folder: Path, loosened: Any
) -> None:
    fill(journal, 0, 4)
    loosened(folder)
    loose = b"".join((folder / f"{seq:08d}").read_bytes() for seq in range(4))
    journal.seal()
    assert (folder / "00000000-00000003").read_bytes().endswith(loose)


def test_a_small_pack_goes_into_the_next_one(journal: Journal, folder: Path) -> None:
    for end in range(1, 12):
        fill(journal, end - 1, end)
        journal.seal()
        assert numbers(journal) == list(range(end))
    assert " ".join(names(folder)) == (
        "00000000-00000003 00000004-00000007 00000008-00000010"
    )


def test_large_records_make_a_pack_full_early(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BYTES", 1)
    fill(journal, 0, 2)
    journal.seal()
    fill(journal, 2, 3)
    journal.seal()
    assert len(names(folder)) == 3
    assert numbers(journal) == [0, 1, 2]


def test_few_loose_records_may_stay(journal: Journal, folder: Path) -> None:
    fill(journal, 0, 3)
    journal.seal(minimum=4)
    assert names(folder) == ["00000000-"]


def test_a_reader_that_listed_before_the_sealing_goes_on(
    journal: Journal, folder: Path
) -> None:
    fill(journal, 0, 6)
    reading = Journal(folder).iterate()
    assert next(reading).seq == 0
    journal.seal()
    assert [next(reading).seq, next(reading).seq] == [1, 2]
    fill(journal, 6, 9)
    journal.seal()
    assert [entry.seq for entry in reading] == [3, 4, 5, 6, 7, 8]


def test_a_listing_that_lost_something_looks_again(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder read while files go and come may show neither pack nor record."""
    fill(journal, 0, 4)
    whole = {"00000000", "00000001", "00000002", "00000003"}
    sights = iter([whole, set(), {"00000000-00000003"}, {"00000000-00000003"}])
    monkeypatch.setattr(packs, "_file_names", lambda _: next(sights))
    assert list_journal(folder).last == 3


def test_records_that_lie_twice_are_read_once_and_mended(
    journal: Journal, folder: Path, tmp_path: Path
) -> None:
    fill(journal, 0, 2)
    journal.seal()
    fill(journal, 2, 5)
    shutil.copytree(folder, tmp_path / "before")
    journal.seal()
    for name in names(tmp_path / "before"):
        shutil.copy(tmp_path / "before" / name, folder)
    assert numbers(Journal(folder)) == list(range(5))
    assert numbers(Journal(folder, writable=True)) == list(range(5))
    assert names(folder) == ["00000000-00000003", "00000004-00000004"]


def test_a_copy_outside_saves_a_record_that_the_pack_lost(
    journal: Journal, folder: Path, tmp_path: Path, loosened: Any
) -> None:
    fill(journal, 0, 4)
    loosened(folder)
    shutil.copy(folder / "00000002", tmp_path)
    journal.seal()
    data = (folder / "00000000-00000003").read_bytes()
    flip(folder / "00000000-00000003", data.index((tmp_path / "00000002").read_bytes()))
    with pytest.raises(DamagedError, match=r"record 2 in .*00000003 does not match"):
        numbers(journal)
    shutil.copy(tmp_path / "00000002", folder)
    assert numbers(Journal(folder, writable=True)) == [0, 1, 2, 3]
    assert "00000002" in names(folder)


def test_damage_spoils_one_record_of_a_pack(journal: Journal, folder: Path) -> None:
    fill(journal, 0, 4)
    journal.seal()
    pack = read_pack(folder, RecordSpan(0, 3))
    flip(folder / "00000000-00000003", pack.cuts[2][0] + 50)
    found = []
    with pytest.raises(DamagedError, match="record 2 in"):
        found.extend(entry.seq for entry in journal.iterate())
    assert [entry.seq for entry in journal.iterate(3)] == [3]
    with pytest.raises(DamagedError, match="record 2 in"):
        journal.read(2)


@pytest.mark.parametrize("byte", [0, 9, 20, 60], ids=["magic", "size", "offset", "sum"])
def test_a_damaged_index_costs_nothing(
    journal: Journal, folder: Path, byte: int
) -> None:
    fill(journal, 0, 4)
    journal.seal()
    flip(folder / "00000000-00000003", byte)
    assert read_pack(folder, RecordSpan(0, 3)).spoilt
    assert numbers(journal) == [0, 1, 2, 3]


def test_a_pack_cut_short_keeps_its_beginning(journal: Journal, folder: Path) -> None:
    fill(journal, 0, 4)
    journal.seal()
    path = folder / "00000000-00000003"
    path.write_bytes(path.read_bytes()[:-40])
    assert journal.read(2).seq == 2
    with pytest.raises(DamagedError, match="record 3 in"):
        journal.read(3)
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match="record 0 in"):
        journal.read(0)


def test_a_damaged_record_is_not_sealed(
    journal: Journal, folder: Path, loosened: Any
) -> None:
    fill(journal, 0, 4)
    loosened(folder)
    flip(folder / "00000002", 50)
    journal.seal()
    assert names(folder) == ["00000000-00000001", "00000002", "00000003"]


def test_a_lost_pack_is_a_gap(journal: Journal, folder: Path) -> None:
    fill(journal, 0, 9)
    journal.seal()
    (folder / "00000004-00000007").unlink()
    assert journal.missing() == [4, 5, 6, 7]
    with pytest.raises(DamagedError, match="00000004 is missing"):
        numbers(journal)


def test_an_archive_seals_as_it_goes_and_at_a_clean_stop(
    archive: Archive, turn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alloop.store.archive._SEALING", 2)
    folder = archive.path / "journal"
    for i in range(5):
        archive.append(turn(i))
    assert names(folder) == ["00000000-00000003", "00000004-"]
    archive.append(turn(5))
    archive.close()
    assert names(folder) == ["00000000-00000003", "00000004-00000005"]
    with Archive.open(archive.path, Codec([])) as reader:
        assert [s.record[0].index for s in reader.records()] == list(range(6))
    plain = zarr.open_group(archive.path, mode="r", use_consolidated=False)
    assert set(dict(plain.members(max_depth=None))) == {"journal", "models"}
    assert verify_store(archive.path, Codec([])) == []


def test_a_stop_by_an_error_leaves_the_journal_alone(
    archive: Archive, turn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alloop.store.archive._SEALING", 1)
    archive.append(turn(0))
    with pytest.raises(ZeroDivisionError), archive:
        raise ZeroDivisionError
    assert names(archive.path / "journal") == ["00000000-"]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_disk_too_full_to_seal_refuses_no_record(
    archive: Archive, codec: Codec, turn: Any, late: bool
) -> None:
    archive.close()
    for fail_at in range(3, 40):
        files = FailingFileSystem(3 * 3 + fail_at, late=late)
        with Archive.open(archive.path, codec, "w", files=files) as writer:
            begin = writer.last() + 1
            try:
                for i in range(begin, begin + 5):
                    writer.append(turn(i))
            except StoreError:
                continue
        if files.count < fail_at:
            break
    with Archive.open(archive.path, codec) as reader:
        found = [stored.record[0].index for stored in reader.records()]
    assert found == list(range(len(found)))
    assert verify_store(archive.path, codec) == []


def test_a_driver_that_slipped_past_the_lock_is_refused_though_names_are_free(
    archive: Archive, codec: Codec, turn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system has no working locks, sealing frees names of records."""
    monkeypatch.setattr("alloop.store.lock.fcntl.flock", lambda *_: None)
    with Archive.open(archive.path, codec, "w") as second:
        for i in range(5):
            second.append(turn(i))
        with pytest.raises(LockedError, match="was taken over by process"):
            archive.append(turn(99))
    with Archive.open(archive.path, codec, "w") as third:
        assert [s.record[0].index for s in third.records()] == list(range(5))
