"""What the store's tests share: a codec of all events, small records, faults, kills."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.records import Label, Walker
from alloop.history.reader import CODEC
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.files import FileSystem
from alloop.store.packs import list_journal, read_pack


class Quick(FileSystem):
    """A file system that promises nothing about power; for tests of order alone."""

    def write(self, path: Path, data: bytes) -> None:
        with path.open("xb") as file:
            file.write(data)

    def append(self, path: Path, data: bytes, end: int) -> None:
        if path.stat().st_size != end:
            raise FileExistsError(path)
        with path.open("ab") as file:
            file.write(data)

    def cut(self, path: Path, end: int) -> None:
        os.truncate(path, end)

    def sync(self, folder: Path) -> None:
        assert folder.is_dir()


class Faulty(Quick):
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

    def append(self, path: Path, data: bytes, end: int) -> None:
        if self.count == self.fail_at and not self.late:
            super().append(path, data[: len(data) // 2], end)
        with self._step():
            super().append(path, data, end)

    def cut(self, path: Path, end: int) -> None:
        with self._step():
            super().cut(path, end)

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


class Death(BaseException):
    """The end of a process: nobody handles it."""


class Dying(Quick):
    """The process dies before operation `at`."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.torn = at % 4  # quarters of what is appended that are there

    def _step(self) -> None:
        if self.left == 0:
            raise Death
        self.left -= 1

    def write(self, path: Path, data: bytes) -> None:
        if self.left == 0:
            path.write_bytes(data[: len(data) // 2])
        self._step()
        super().write(path, data)

    def append(self, path: Path, data: bytes, end: int) -> None:
        if self.left == 0:
            super().append(path, data[: self.torn * len(data) // 4], end)
        self._step()
        super().append(path, data, end)

    def cut(self, path: Path, end: int) -> None:
        self._step()
        super().cut(path, end)

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def make(self, folder: Path) -> None:
        self._step()
        super().make(folder)

    def sync(self, folder: Path) -> None:
        self._step()
        super().sync(folder)


class Folder:
    """A folder of the model: what it holds, and which changes are not synced yet."""

    def __init__(self) -> None:
        self.live: dict[str, Folder | bytearray] = {}
        self.durable: dict[str, Folder | bytearray] = {}
        self.pending: list[tuple[str, Folder | bytearray | None]] = []

    def set(self, name: str, node: "Folder | bytearray | None") -> None:
        self.live.pop(name, None)
        if node is not None:
            self.live[name] = node
        self.pending.append((name, node))

    def sync(self) -> None:
        self.durable = dict(self.live)
        self.pending = []

    def survive(self, path: Path, rng: random.Random) -> None:
        """Write what a power loss leaves: of the changes not synced, any."""
        path.mkdir()
        left = dict(self.durable)
        for name, node in self.pending:
            if rng.random() < 0.5:
                left.pop(name, None)
                if node is not None:
                    left[name] = node
        for name, node in left.items():
            if isinstance(node, Folder):
                node.survive(path / name, rng)
            else:
                (path / name).write_bytes(node)


class Volatile(Quick):
    """A file system whose power may fail after any operation, beneath one folder.

    Contents are on the disk from `write` on, as Files promises; names only when their
    folder was synced. `after` is called after each operation.
    """

    def __init__(self, root: Path, after: Callable[[], None]) -> None:
        self.root = root
        self.top = Folder()
        self.after = after

    def _folder(self, path: Path) -> Folder:
        found = self.top
        for part in path.relative_to(self.root).parts:
            inner = found.live[part]
            assert isinstance(inner, Folder)
            found = inner
        return found

    def _set(self, path: Path, node: Folder | bytearray | None) -> None:
        self._folder(path.parent).set(path.name, node)

    def _get(self, path: Path) -> Folder | bytearray:
        return self._folder(path.parent).live[path.name]

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        self._set(path, bytearray(data))
        self.after()

    def append(self, path: Path, data: bytes, end: int) -> None:
        super().append(path, data, end)
        node = self._get(path)
        assert isinstance(node, bytearray)
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            node += part  # the same bytes under all their names, durable or not
            self.after()

    def cut(self, path: Path, end: int) -> None:
        super().cut(path, end)
        node = self._get(path)
        assert isinstance(node, bytearray)
        del node[end:]
        self.after()

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._set(target, self._get(source))
        self.after()

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._set(target, self._get(source))
        self._set(source, None)
        self.after()

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._set(path, None)
        self.after()

    def make(self, folder: Path) -> None:
        super().make(folder)
        self._set(folder, Folder())
        self.after()

    def sync(self, folder: Path) -> None:
        super().sync(folder)
        self._folder(folder).sync()
        self.after()


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


@pytest.fixture
def dying() -> type[Dying]:
    return Dying


@pytest.fixture
def quick() -> Quick:
    return Quick()


@pytest.fixture
def death() -> type[BaseException]:
    return Death


@pytest.fixture
def volatile() -> type[Volatile]:
    return Volatile


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Packs of so many records."""
    monkeypatch.setattr(packs, "RECORDS", 4)
    return 4


def _loosened(folder: Path) -> None:
    for tail in list_journal(folder).tails:
        pack = read_pack(folder, tail)
        for seq in range(tail.first, tail.last + 1):
            (folder / f"{seq:08d}").write_bytes(pack.record_bytes(seq))
        (folder / tail.name).unlink()


@pytest.fixture
def loosened() -> Callable[[Path], None]:
    """Gives the records of a journal's tails a file each, as format 2 had them."""
    return _loosened


@pytest.fixture(scope="session")
def codec() -> Codec:
    return CODEC


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
