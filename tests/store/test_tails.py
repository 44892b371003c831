"""The file that grows: torn ends are nothing, damage is told, one sync a record."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.errors import DamagedError, LockedError
from alloop.store import packs
from alloop.store.codec import EncodedRecord
from alloop.store.files import FileSystem
from alloop.store.journal import STAGING, Journal
from alloop.store.packs import frame_record, list_journal, tail_layout
from alloop.store.record import pack_record, unpack_record

FIRST = 7
RECORDS = [pack_record({"seq": FIRST + i, "text": "x" * i}, []) for i in range(3)]
PARTS = [frame_record(FIRST + i, record) for i, record in enumerate(RECORDS)]
DATA = b"".join(PARTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "journal" / STAGING).mkdir(parents=True)
    return tmp_path / "journal"


def fill(
    folder: Path, begin: int, end: int, files: FileSystem | None = None
) -> Journal:
    journal = Journal(folder, writable=True, files=files)
    for seq in range(begin, end):
        journal.append(seq, EncodedRecord({"#map": {"n": seq}}, ()), 0.0)
    return journal


def numbers(folder: Path) -> list[int]:
    return [entry.record.tree["#map"]["n"] for entry in Journal(folder).iterate()]


def names(folder: Path) -> list[str]:
    files = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in files if name[0].isdigit())


def found(data: bytes) -> list[bytes]:
    return [data[begin:end] for begin, end in tail_layout(data, FIRST).cuts]


def seqs(data: bytes) -> list[int]:
    """Records that are whole and where they belong."""
    good = []
    for index, raw in enumerate(found(data)):
        try:
            header, _ = unpack_record(raw, "x")
        except DamagedError:
            continue
        assert header["seq"] == FIRST + index
        good.append(header["seq"] - FIRST)
    return good


def test_records_are_found_where_they_lie() -> None:
    assert found(DATA) == RECORDS
    assert tail_layout(DATA, FIRST).end == len(DATA)
    assert not tail_layout(DATA, FIRST).spoilt


@given(st.integers(len(PARTS[0]), len(DATA) - 1), st.sampled_from([0, 1, 9000]))
def test_any_torn_end_is_no_record_and_no_damage(size: int, zeros: int) -> None:
    whole = 1 if size < len(PARTS[0] + PARTS[1]) else 2
    cut = DATA[:size]
    assert found(cut) == RECORDS[:whole]
    end = len(b"".join(PARTS[:whole]))
    assert (tail_layout(cut, FIRST).end, tail_layout(cut, FIRST).spoilt) == (end, False)
    assert found(DATA[:end] + bytes(zeros)) == RECORDS[:whole]


@given(st.integers(0, len(PARTS[0]) - 1))
def test_the_first_record_is_never_torn(size: int) -> None:
    assert tail_layout(DATA[:size], FIRST).spoilt
    assert len(found(DATA[:size])) == 1
    assert seqs(DATA[:size]) == []


@given(st.integers(0, len(DATA) * 8 - 1))
def test_any_flipped_bit_is_told_and_costs_one_record_at_most(bit: int) -> None:
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    data = bytes(damaged)
    assert len(found(data)) == 3
    assert tail_layout(data, FIRST).spoilt or len(seqs(data)) < 3
    assert len(seqs(data)) >= 2


def test_what_lies_behind_two_lost_records_has_its_number() -> None:
    lost = b"\1" * (len(PARTS[0]) + len(PARTS[1]))
    assert seqs(lost + PARTS[2]) == [2]
    assert [len(raw) for raw in found(lost + PARTS[2])][1] == 0


def test_a_record_is_synced_once_before_it_is_acknowledged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = fill(folder, 0, 1)
    sizes: list[int] = []

    def sync(handle: int) -> None:
        sizes.append(os.fstat(handle).st_size)

    monkeypatch.setattr("alloop.store.files._sync", sync)
    monkeypatch.setattr("os.fsync", sync)
    for seq in range(1, 4):
        journal.append(seq, EncodedRecord(seq, ()), 0.0)
        assert len(sizes) == seq
        assert sizes[-1] == (folder / "00000000-").stat().st_size


def test_a_torn_end_is_cut_before_the_next_record(folder: Path) -> None:
    fill(folder, 0, 3)
    path = folder / "00000000-"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 5])
    assert numbers(folder) == [0, 1, 2]
    assert Journal(folder).last() == 2
    fill(folder, 3, 4)
    assert numbers(folder) == [0, 1, 2, 3]
    assert names(folder) == ["00000000-"]


def test_a_damaged_tail_is_not_appended_to(folder: Path) -> None:
    fill(folder, 0, 3)
    path = folder / "00000000-"
    data = bytearray(path.read_bytes())
    data[3] ^= 1  # the size of the first record
    path.write_bytes(data)
    fill(folder, 3, 5)
    assert names(folder) == ["00000000-", "00000003-"]
    assert numbers(folder) == [0, 1, 2, 3, 4]
    assert path.read_bytes() == data


def test_a_large_tail_is_followed_by_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BYTES", 300)
    journal = fill(folder, 0, 6)
    assert len(list_journal(folder).tails) > 1
    assert numbers(folder) == list(range(6))
    assert Journal(folder).missing() == []
    monkeypatch.setattr(packs, "BYTES", 10**6)
    journal.seal()
    assert names(folder) == ["00000000-00000005"]
    assert numbers(folder) == list(range(6))


def test_a_tail_that_a_lost_power_brought_back_is_removed(
    folder: Path, tmp_path: Path
) -> None:
    journal = fill(folder, 0, 3)
    shutil.copy(folder / "00000000-", tmp_path)
    journal.seal()
    journal.append(3, EncodedRecord({"#map": {"n": 3}}, ()), 0.0)
    shutil.copy(tmp_path / "00000000-", folder)
    assert numbers(folder) == [0, 1, 2, 3]
    fill(folder, 4, 5)
    assert names(folder) == ["00000000-00000002", "00000003-"]
    assert numbers(folder) == list(range(5))


def test_a_tail_stays_while_its_pack_is_damaged(folder: Path, tmp_path: Path) -> None:
    journal = fill(folder, 0, 3)
    shutil.copy(folder / "00000000-", tmp_path)
    journal.seal()
    path = folder / "00000000-00000002"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    shutil.copy(tmp_path / "00000000-", folder)
    fill(folder, 3, 4).seal()
    assert "00000000-" in names(folder)
    assert numbers(folder) == [0, 1, 2, 3]


def test_a_damaged_record_in_a_tail_is_named_and_not_sealed(folder: Path) -> None:
    journal = fill(folder, 0, 4)
    path = folder / "00000000-"
    begin, end = tail_layout(path.read_bytes(), 0).cuts[2]
    data = bytearray(path.read_bytes())
    data[(begin + end) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"record 2 in .*00000000- does not match"):
        numbers(folder)
    journal.seal()
    assert names(folder) == ["00000000-", "00000000-00000001"]
    assert Journal(folder).read(3).seq == 3


def test_a_writer_whose_tail_another_has_sealed_is_refused(folder: Path) -> None:
    first = fill(folder, 0, 3)
    Journal(folder, writable=True).seal()
    with pytest.raises(LockedError, match="was written by another driver"):
        first.append(3, EncodedRecord(3, ()), 0.0)
    assert numbers(folder) == [0, 1, 2]


def test_files_append_only_where_they_are_told(tmp_path: Path) -> None:
    path, files = tmp_path / "x", FileSystem()
    with pytest.raises(FileNotFoundError):
        files.append(path, b"a", 0)
    assert not path.exists()
    files.write(path, b"abc")
    with pytest.raises(FileExistsError):
        files.append(path, b"d", 2)
    files.append(path, b"def", 3)
    files.cut(path, 4)
    assert path.read_bytes() == b"abcd"


def test_records_of_format_2_go_on_in_a_tail(folder: Path, loosened: Any) -> None:
    fill(folder, 0, 3)
    loosened(folder)
    journal = fill(folder, 3, 5)
    assert names(folder) == ["00000000", "00000001", "00000002", "00000003-"]
    assert numbers(folder) == list(range(5))
    assert journal.missing() == []
    journal.seal()
    assert names(folder) == ["00000000-00000004"]
    assert numbers(folder) == list(range(5))
