"""A label is paid for once, whoever asks again."""

import errno
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.core.errors import StoreError
from alloop.core.records import Failure, Label, Unlabelled
from alloop.store.cache import LabelCache
from alloop.store.record import pack_record, unpack_record
from benchmarks.durability.file_systems import FailingFileSystem

LEVEL = "a" * 16


@pytest.fixture
def label(water: Any) -> Label:
    frame = water(0.0)
    return Label(frame.id, LEVEL, -75.0, frame.positions * 2, 1.5, {"rung": "default"})


def test_a_label_comes_back_for_its_level_and_frame_only(
    tmp_path: Path, label: Label
) -> None:
    LabelCache(tmp_path / "cache").put(label)
    found = LabelCache(tmp_path / "cache").get(LEVEL, label.frame)
    assert isinstance(found, Label)
    assert found.forces.tobytes() == label.forces.tobytes()
    assert (found.energy, found.cpu_seconds, found.details) == (
        label.energy,
        label.cpu_seconds,
        label.details,
    )
    assert LabelCache(tmp_path / "cache").get("b" * 16, label.frame) is None
    assert LabelCache(tmp_path / "cache").get(LEVEL, "0" * 32) is None


def test_a_failure_is_kept_with_its_reason(tmp_path: Path, label: Label) -> None:
    cache = LabelCache(tmp_path)
    cache.put(Unlabelled(label.frame, LEVEL, Failure.GATE, "net force"))
    found = cache.get(LEVEL, label.frame)
    assert isinstance(found, Unlabelled)
    assert (found.failure, found.message) == (Failure.GATE, "net force")


def test_the_first_label_stays(tmp_path: Path, label: Label) -> None:
    cache = LabelCache(tmp_path)
    cache.put(label)
    cache.put(Label(label.frame, LEVEL, 0.0, label.forces))
    found = cache.get(LEVEL, label.frame)
    assert isinstance(found, Label)
    assert found.energy == label.energy


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_label_counts_as_absent_and_is_replaced(
    tmp_path: Path, label: Label, damage: bytes | None
) -> None:
    cache = LabelCache(tmp_path)
    cache.put(label)
    (file,) = tmp_path.glob(f"{LEVEL}/*/*")
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert cache.get(LEVEL, label.frame) is None
    cache.put(label)
    assert cache.get(LEVEL, label.frame) is not None


@pytest.mark.parametrize(
    "change",
    [
        *({"versions": x} for x in (None, 5, [])),
        *({"record": x} for x in (None, 5, "x", [])),
        *({"record": {"energy": x}} for x in (None, "x", [])),
        *({"record": {"forces": x}} for x in (None, 1.0, "x")),
    ],
)
def test_a_crafted_label_counts_as_absent(
    tmp_path: Path, label: Label, change: dict[str, Any]
) -> None:
    """Its checksum is right, its content is not that of a label."""
    cache = LabelCache(tmp_path)
    cache.put(label)
    (file,) = tmp_path.glob(f"{LEVEL}/*/*")
    header, arrays = unpack_record(file.read_bytes(), "it")
    ((key, value),) = change.items()
    header[key] = {**header[key], **value} if isinstance(value, dict) else value
    file.write_bytes(pack_record(header, arrays))
    assert cache.get(LEVEL, label.frame) is None
    cache.put(label)
    assert cache.get(LEVEL, label.frame) is not None


@pytest.mark.parametrize("forces", [np.diag([np.nan, 0, 0]), np.zeros(9)])
def test_forces_that_are_none_count_as_no_label(
    tmp_path: Path, label: Label, forces: Any
) -> None:
    cache = LabelCache(tmp_path)
    cache.put(replace(label, forces=forces))
    assert cache.get(LEVEL, label.frame) is None


def test_a_label_under_anothers_name_counts_as_absent(
    tmp_path: Path, label: Label
) -> None:
    cache = LabelCache(tmp_path)
    cache.put(label)
    (file,) = tmp_path.glob(f"{LEVEL}/*/*")
    file.rename(file.with_name(file.name[:2] + "0" * 30))
    assert cache.get(LEVEL, label.frame[:2] + "0" * 30) is None


def test_many_writers_leave_whole_labels(tmp_path: Path, water: Any) -> None:
    frames = [water(i / 10) for i in range(20)]

    def fill() -> None:
        cache = LabelCache(tmp_path)
        for frame in frames:
            cache.put(Label(frame.id, LEVEL, 1.0, frame.positions))

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache = LabelCache(tmp_path)
    for frame in frames:
        found = cache.get(LEVEL, frame.id)
        assert isinstance(found, Label)
        assert np.array_equal(found.forces, frame.positions)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, label: Label, code: int
) -> None:
    for fail_at in range(20):
        files = FailingFileSystem(fail_at, code)
        try:
            LabelCache(tmp_path / "cache", files).put(label)
        except StoreError as error:
            said = str(error)
        else:
            break
        assert "no space left" in said or "cannot be written" in said
    assert LabelCache(tmp_path / "cache").get(LEVEL, label.frame) is not None
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        LabelCache(tmp_path / "file").put(label)
