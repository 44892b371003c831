"""What the store's tests share: a codec of all events, small records, faults, kills."""

import contextlib
import errno
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.records import Label, Walker
from alloop.loop import events
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.files import Files


class Faulty(Files):
    """A file system whose operation `fail_at` fails, before or after its deed."""

    def __init__(self, fail_at: int, code: int = errno.ENOSPC, late: bool = False):
        self.fail_at = fail_at
        self.code = code
        self.late = late
        self.count = 0

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        self.count += 1
        hit = self.count - 1 == self.fail_at
        if hit and not self.late:
            raise OSError(self.code, os.strerror(self.code))
        yield
        if hit:
            raise OSError(self.code, os.strerror(self.code))

    def write(self, path: Path, data: bytes) -> None:
        if self.count == self.fail_at and not self.late:
            path.write_bytes(data[: len(data) // 2])
        with self._step():
            super().write(path, data)

    def link(self, source: Path, target: Path) -> None:
        with self._step():
            super().link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        with self._step():
            super().replace(source, target)

    def make(self, folder: Path) -> None:
        with self._step():
            super().make(folder)

    def sync(self, folder: Path) -> None:
        with self._step():
            super().sync(folder)


class Nursery:
    """A process that forks children running `work(argument)`, to be killed quickly."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script + _NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def spawn(self, argument: object) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{argument}\n")
        self._process.stdin.flush()
        return int(self._line())

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._line()

    def wait(self) -> int:
        return int(self._line())

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


_NURSERY = """
import os, sys
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        work(line.strip())
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.fixture
def nursery() -> Iterator[Callable[[str], Nursery]]:
    open_ones: list[Nursery] = []

    def start(script: str) -> Nursery:
        open_ones.append(Nursery(script))
        return open_ones[-1]

    yield start
    for each in open_ones:
        each.close()


@pytest.fixture
def faulty() -> type[Faulty]:
    return Faulty


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec(
        cls
        for _, cls in inspect.getmembers(events, inspect.isclass)
        if cls.__module__ == events.__name__
    )


def _water(shift: float = 0.0) -> Frame:
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    return Frame(np.array([8, 1, 1]), positions + np.array([shift, 0, 0]))


@pytest.fixture(scope="session")
def water() -> Callable[[float], Frame]:
    return _water


@pytest.fixture(scope="session")
def turn() -> Callable[[int], tuple[Walker, Label]]:
    """A small record with frames and arrays, different for each number."""

    def make(index: int) -> tuple[Walker, Label]:
        frame = _water(index / 7)
        label = Label(frame.id, "0" * 16, -75.0 - index, frame.positions * index)
        return Walker(index, 0, frame, frame.positions), label

    return make


@pytest.fixture
def archive(tmp_path: Path, codec: Codec) -> Iterator[Archive]:
    attrs = {"name": "water", "seed": 7, "config": "name: water\n"}
    with Archive.create(tmp_path / "s.zarr", attrs=attrs, codec=codec) as made:
        yield made
