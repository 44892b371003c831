"""One driver at a time, and no lock outlives its holder."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from alloop.core.errors import LockedError, StoreError
from alloop.store.lock import StoreLock

HOLD = """
import sys, time
from pathlib import Path
from alloop.store.lock import StoreLock
def work(path):
    lock = StoreLock(Path(path), Path("water.zarr"))
    Path(path + ".held").touch()
    time.sleep(60)
"""
ORPHAN = """
import os, time
from pathlib import Path
from alloop.store.lock import StoreLock
def work(path):
    lock = StoreLock(Path(path), Path("water.zarr"))
    child = os.fork()
    if child == 0:
        Path(path + ".child").write_text(str(os.getpid()))
        lock.release()
        time.sleep(60)
    while not Path(path + ".child").exists():
        time.sleep(0.002)
    Path(path + ".held").touch()
    time.sleep(60)
"""


def until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)


def test_a_second_driver_is_told_who_holds_the_store(tmp_path: Path) -> None:
    held = StoreLock(tmp_path / "lock", Path("water.zarr"))
    with pytest.raises(LockedError) as caught:
        StoreLock(tmp_path / "lock", Path("water.zarr"))
    message = str(caught.value)
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in message
    assert message.startswith("water.zarr is in use by")
    held.release()
    held.release()
    StoreLock(tmp_path / "lock", Path("water.zarr")).release()


def test_an_unsigned_lock_still_refuses(tmp_path: Path) -> None:
    held = StoreLock(tmp_path / "lock", tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(LockedError, match="in use by another driver"):
        StoreLock(tmp_path / "lock", tmp_path)
    held.release()


def test_a_lock_holds_between_processes_and_ends_with_its_holder(
    tmp_path: Path, fork_server: Any
) -> None:
    path, server = tmp_path / "lock", fork_server(HOLD)
    for _ in range(3):
        pid = server.spawn(path)
        until(tmp_path / "lock.held")
        with pytest.raises(LockedError, match=f"process {pid} on"):
            StoreLock(path, tmp_path)
        server.kill(pid)
        StoreLock(path, tmp_path).release()
        (tmp_path / "lock.held").unlink()


def test_a_child_does_not_keep_the_lock_of_a_killed_driver(
    tmp_path: Path, fork_server: Any
) -> None:
    path, server = tmp_path / "lock", fork_server(ORPHAN)
    pid = server.spawn(path)
    until(tmp_path / "lock.held")
    with pytest.raises(LockedError):
        StoreLock(path, tmp_path)
    server.kill(pid)
    try:
        StoreLock(path, tmp_path).release()
    finally:
        os.kill(int((tmp_path / "lock.child").read_text()), signal.SIGKILL)


def test_a_lock_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        StoreLock(tmp_path / "missing" / "lock", tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("ENOLCK", "has no file locks"), ("EIO", "cannot be locked")],
)
def test_a_file_system_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    import errno

    def refuse(handle: int, operation: int) -> None:
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError, match=sentence):
        StoreLock(tmp_path / "lock", tmp_path)
