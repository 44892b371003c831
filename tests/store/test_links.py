"""A store from elsewhere leads no command out of itself."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alloop.cli import main
from alloop.core.errors import StoreError
from alloop.core.records import Label
from alloop.history.reader import CODEC
from alloop.report.text.event_log import LogFile
from alloop.store import files as module
from alloop.store.archive import Archive
from alloop.store.cache import LabelCache
from alloop.store.doctor import verify_store
from alloop.store.files import sweep_staging
from alloop.store.lock import StoreLock
from alloop.workers.batch_jobs import start_scheduler
from alloop.workers.spool import Spool


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of somebody's that no store has a right to."""
    (tmp_path / "mine" / "thesis").mkdir(parents=True)
    (tmp_path / "mine" / "thesis" / "chapter").write_text("one")
    (tmp_path / "mine" / "notes").write_text("two")
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.fixture
def untouched(mine: Path) -> Iterator[None]:
    before = contents(mine)
    yield
    assert contents(mine) == before


@pytest.fixture
def store(archive: Archive, turn: Callable[[int], Any]) -> Path:
    for i in range(3):
        archive.append(turn(i))
    archive.put_model("m", b"weights")
    archive.close()
    return archive.path


PLACES = (
    *("journal/staging", "journal/lock", "journal/00000000-", "journal/folds"),
    *("journal", "zarr.json", "models", "models/m/c.0", "labels", "labels/cheap"),
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("untouched")
def test_a_link_anywhere_in_a_store_is_refused_and_told(
    store: Path, mine: Path, place: str
) -> None:
    link = store / place
    folder = link.is_dir() or not link.exists()
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine if folder else mine / "notes")
    for mode in ("r", "w"):
        with pytest.raises(StoreError, match="a symbolic link"):
            Archive.open(store, CODEC, mode)  # type: ignore[arg-type]
    assert str(link) in {finding.where for finding in verify_store(store, CODEC)}
    for command in (["exclude", "--reason", "x", str(store), "a"], ["resume"]):
        asked = command if len(command) > 1 else [*command, str(store), "--quiet"]
        assert main(asked) == 2


def test_pipes_and_sockets_are_refused_without_waiting(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "journal" / "lock").unlink()
    os.mkfifo(store / "journal" / "lock")
    with pytest.raises(StoreError, match="a named pipe"):
        Archive.open(store, CODEC, "w")
    with pytest.raises(StoreError, match="plain file"):
        StoreLock(store / "journal" / "lock", store)
    (store / "journal" / "lock").unlink()
    monkeypatch.chdir(store)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("door")
        with pytest.raises(StoreError, match="a socket"):
            Archive.open(store, CODEC)


@pytest.mark.usefixtures("untouched")
def test_who_puts_a_link_there_after_the_look_gains_nothing(
    store: Path, mine: Path
) -> None:
    (store / "journal" / "staging").rmdir()
    (store / "journal" / "staging").symlink_to(mine)
    with pytest.raises(OSError, match="staging"):
        sweep_staging(store / "journal" / "staging")
    (store / "journal" / "lock").unlink()
    (store / "journal" / "lock").symlink_to(mine / "notes")
    with pytest.raises(StoreError):
        StoreLock(store / "journal" / "lock", store)
    (store / "journal" / "lock").unlink()
    (store / "journal" / "staging").unlink()
    os.link(mine / "notes", store / "journal" / "lock")
    with pytest.raises(StoreError, match="of one name"):
        Archive.open(store, CODEC, "w")


@pytest.mark.usefixtures("untouched")
def test_emptying_a_folder_removes_links_and_not_what_they_lead_to(
    tmp_path: Path, mine: Path
) -> None:
    staging = tmp_path / "staging"
    (staging / "model").mkdir(parents=True)
    (staging / "model" / "inner").symlink_to(mine)
    (staging / "file").symlink_to(mine / "notes")
    (staging / "folder").symlink_to(mine)
    sweep_staging(staging)
    assert list(staging.iterdir()) == []
    staging.rmdir()
    sweep_staging(staging)  # as git leaves a store, without empty folders
    assert staging.is_dir()


@pytest.mark.usefixtures("untouched")
def test_a_label_cache_a_spool_and_a_folder_of_jobs_lead_nowhere_else(
    tmp_path: Path, mine: Path, water: Any
) -> None:
    frame, level = water(0.0), "0" * 16
    label = Label(frame.id, level, -1.0, frame.positions)
    for place in (level, f"{level}/{frame.id[:2]}", "staging"):
        cache = LabelCache(tmp_path / f"cache-{len(place)}")
        link = tmp_path / f"cache-{len(place)}" / place
        link.parent.mkdir(parents=True)
        link.symlink_to(mine)
        with pytest.raises(StoreError, match="a symbolic link"):
            cache.put(label)
    with pytest.raises(StoreError, match="hexadecimal"):
        cache.discard("../..", "notes")
    Path(tmp_path / "x.zarr.spool").symlink_to(mine)
    with pytest.raises(StoreError, match="a symbolic link"):
        Spool(tmp_path / "x.zarr")
    batch: Any = None  # the links are looked for first
    Path(tmp_path / "x.zarr.jobs").symlink_to(mine)
    (tmp_path / "y.zarr.jobs").mkdir()
    Path(tmp_path / "y.zarr.jobs" / "tls").symlink_to(mine)
    for name in ("x", "y"):
        with pytest.raises(StoreError, match="a symbolic link"):
            start_scheduler(batch, tmp_path / f"{name}.zarr.jobs")
    (tmp_path / "y.zarr.spool").mkdir()
    Path(tmp_path / "y.zarr.spool" / "training").symlink_to(mine)
    with pytest.raises(StoreError, match="a symbolic link"):
        Spool(tmp_path / "y.zarr")


@pytest.mark.usefixtures("untouched")
def test_the_log_beside_a_store_is_not_written_through_a_link(
    tmp_path: Path, mine: Path
) -> None:
    (tmp_path / "x.log").symlink_to(mine / "notes")
    with pytest.raises(Exception, match="log file"), LogFile(tmp_path / "x.log"):
        pass


def test_entries_that_vanish_meanwhile_are_passed_over(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def late(path: Any) -> Any:
        if Path(path).name == "staging":
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr("os.scandir", late)
    assert list(module.find_links(store)) == []
