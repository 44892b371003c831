"""A campaign that runs elsewhere: seen by `status`, ended by `alloop stop`."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from alloop.cli import main
from alloop.history.reader import CODEC
from alloop.store.archive import Archive
from alloop.store.lock import lock_holder, request_stop, stop_file, stop_requested
from tests.conftest import write_toy

Capture = pytest.CaptureFixture[str]


def slow_toy(folder: Path) -> Path:
    slow = {"kind": "toy", "burn": 0.02}
    cheap = {**slow, "stiffness": 0.9}
    return write_toy(folder, levels={"cheap": cheap, "expensive": slow})


@contextmanager
def driven(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A campaign that another process drives, from its first commit on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "opened" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def status(capsys: Capture, path: Path) -> dict[str, object]:
    capsys.readouterr()
    assert main(["status", str(path), "--json"]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


def test_a_live_campaign_is_told_from_a_dead_one_and_stopped(
    tmp_path: Path, capsys: Capture
) -> None:
    slow = {"kind": "toy", "burn": 0.1}
    path = write_toy(
        tmp_path, levels={"cheap": {**slow, "offset": 1}, "expensive": slow}
    )
    with driven(path) as process:
        running = status(capsys, path)["running"]
        assert isinstance(running, dict)
        assert running["pid"] == process.pid
        assert running["host"] == socket.gethostname()
        assert main(["status", str(path)]) == 0
        assert f"running: process {process.pid} on" in capsys.readouterr().out
        assert main(["stop", str(path), "--wait", "60"]) == 0
        assert f"asked process {process.pid}" in capsys.readouterr().out
        assert process.wait(timeout=10) == 3
        assert process.stdout is not None
        assert (
            process.stdout.read().splitlines()[-1].startswith("stopped; continue with")
        )
    assert status(capsys, path)["running"] is None
    assert not stop_file(tmp_path / "toy.zarr").exists()
    assert main(["stop", str(path)]) == 0
    assert "is not running; continue with: alloop resume" in capsys.readouterr().out


def test_a_killed_campaign_is_not_running_and_can_be_taken_up(
    tmp_path: Path, capsys: Capture
) -> None:
    slow = {"kind": "toy", "burn": 0.1}
    path = write_toy(
        tmp_path, levels={"cheap": {**slow, "offset": 1}, "expensive": slow}
    )
    with driven(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert status(capsys, path)["running"] is None
        assert main(["status", str(path)]) == 0
        assert (
            "none is running; continue with: alloop resume" in capsys.readouterr().out
        )


def test_a_request_reaches_no_other_driver_than_the_one_it_was_meant_for(
    tmp_path: Path,
) -> None:
    store = tmp_path / "a.zarr"
    with Archive.create(store, attrs={}, codec=CODEC) as archive:
        first = lock_holder(store)
        assert first is not None
        request_stop(store, first)
        assert stop_requested(store, archive.signature)
    assert lock_holder(store) is None
    time.sleep(0.01)
    with Archive.open(store, CODEC, mode="w") as archive:
        assert not stop_requested(store, archive.signature)


def test_who_waits_too_briefly_is_told_so(tmp_path: Path, capsys: Capture) -> None:
    store = tmp_path / "a.zarr"
    with Archive.create(store, attrs={}, codec=CODEC):
        assert main(["stop", str(store), "--wait", "0"]) == 3
    assert "is still running" in capsys.readouterr().err


def test_looking_never_refuses_a_driver(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    Archive.create(store, attrs={}, codec=CODEC).close()
    looking = (store / "journal" / "lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    end = Timer(0.06, looking.close)
    end.start()
    Archive.open(store, CODEC, mode="w").close()
    end.join()
