"""File systems for tests: quick ones, and ones whose operations fail.

Each replaces `alloop.store.files.FileSystem`.
"""

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from alloop.store.files import FileSystem


class UnsyncedFileSystem(FileSystem):
    """A file system that never waits for the disk; a loss of power may take all."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        with path.open("xb") as file:
            file.write(data)

    def append(self, path: Path, data: bytes, end: int) -> None:
        """Append bytes to a file of size `end`."""
        if path.stat().st_size != end:
            raise FileExistsError(path)
        with path.open("ab") as file:
            file.write(data)

    def cut(self, path: Path, end: int) -> None:
        """Truncate a file."""
        os.truncate(path, end)

    def sync(self, folder: Path) -> None:
        """Sync a folder."""
        if not folder.is_dir():
            raise NotADirectoryError(folder)


class FailingFileSystem(UnsyncedFileSystem):
    """A file system whose operation number `fail_at` fails with an errno `code`.

    It fails before the operation, or in the middle of a write; with `late` after it.
    """

    def __init__(self, fail_at: int, code: int = errno.ENOSPC, late: bool = False):
        self.fail_at = fail_at
        self.code = code
        self.late = late
        self.count = 0

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        self.count += 1
        fails = self.count - 1 == self.fail_at
        if fails and not self.late:
            raise OSError(self.code, os.strerror(self.code))
        yield
        if fails:
            raise OSError(self.code, os.strerror(self.code))

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        if self.count == self.fail_at and not self.late:
            path.write_bytes(data[: len(data) // 2])
        with self._step():
            super().write(path, data)

    def append(self, path: Path, data: bytes, end: int) -> None:
        """Append bytes to a file of size `end`."""
        if self.count == self.fail_at and not self.late:
            super().append(path, data[: len(data) // 2], end)
        with self._step():
            super().append(path, data, end)

    def cut(self, path: Path, end: int) -> None:
        """Truncate a file."""
        with self._step():
            super().cut(path, end)

    def link(self, source: Path, target: Path) -> None:
        """Add a second name for a file."""
        with self._step():
            super().link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file."""
        with self._step():
            super().replace(source, target)

    def make(self, folder: Path) -> None:
        """Make a folder."""
        with self._step():
            super().make(folder)

    def sync(self, folder: Path) -> None:
        """Sync a folder."""
        with self._step():
            super().sync(folder)


class ProcessDeath(BaseException):
    """The end of a process, which no code handles."""


class DyingFileSystem(UnsyncedFileSystem):
    """A file system with which the process dies before operation number `at`.

    A write is half done then, an append by `at % 4` quarters.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.quarters = at % 4  # of what is appended

    def _step(self) -> None:
        if self.left == 0:
            raise ProcessDeath
        self.left -= 1

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        if self.left == 0:
            path.write_bytes(data[: len(data) // 2])
        self._step()
        super().write(path, data)

    def append(self, path: Path, data: bytes, end: int) -> None:
        """Append bytes to a file of size `end`."""
        if self.left == 0:
            super().append(path, data[: self.quarters * len(data) // 4], end)
        self._step()
        super().append(path, data, end)

    def cut(self, path: Path, end: int) -> None:
        """Truncate a file."""
        self._step()
        super().cut(path, end)

    def link(self, source: Path, target: Path) -> None:
        """Add a second name for a file."""
        self._step()
        super().link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file."""
        self._step()
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        self._step()
        super().remove(path)

    def make(self, folder: Path) -> None:
        """Make a folder."""
        self._step()
        super().make(folder)

    def sync(self, folder: Path) -> None:
        """Sync a folder."""
        self._step()
        super().sync(folder)


class VolatileFolder:
    """A folder's entries, and which of their changes are not synced yet."""

    def __init__(self) -> None:
        self.live: dict[str, VolatileFolder | bytearray] = {}
        self.durable: dict[str, VolatileFolder | bytearray] = {}
        self.pending: list[tuple[str, VolatileFolder | bytearray | None]] = []

    def set(self, name: str, node: "VolatileFolder | bytearray | None") -> None:
        """Change an entry, not synced; None removes it."""
        self.live.pop(name, None)
        if node is not None:
            self.live[name] = node
        self.pending.append((name, node))

    def sync(self) -> None:
        """Make all changes durable."""
        self.durable = dict(self.live)
        self.pending = []

    def survive(self, path: Path, rng: random.Random) -> None:
        """Write what a loss of power leaves: of the changes not synced, any."""
        path.mkdir()
        entries = dict(self.durable)
        for name, node in self.pending:
            if rng.random() < 0.5:
                entries.pop(name, None)
                if node is not None:
                    entries[name] = node
        for name, node in entries.items():
            if isinstance(node, VolatileFolder):
                node.survive(path / name, rng)
            else:
                (path / name).write_bytes(node)


class VolatileFileSystem(UnsyncedFileSystem):
    """A file system whose power may fail after any operation beneath one folder.

    Contents are on the disk from `write` on, as `FileSystem` promises, names only when
    their folder was synced. `after` is called after each operation; `top.survive` then
    writes what a loss of power leaves.
    """

    def __init__(self, root: Path, after: Callable[[], None]) -> None:
        self.root = root
        self.top = VolatileFolder()
        self.after = after

    def _folder(self, path: Path) -> VolatileFolder:
        folder = self.top
        for part in path.relative_to(self.root).parts:
            inner = folder.live[part]
            assert isinstance(inner, VolatileFolder)
            folder = inner
        return folder

    def _set(self, path: Path, node: VolatileFolder | bytearray | None) -> None:
        self._folder(path.parent).set(path.name, node)

    def _get(self, path: Path) -> VolatileFolder | bytearray:
        return self._folder(path.parent).live[path.name]

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        super().write(path, data)
        self._set(path, bytearray(data))
        self.after()

    def append(self, path: Path, data: bytes, end: int) -> None:
        """Append bytes to a file of size `end`."""
        super().append(path, data, end)
        node = self._get(path)
        assert isinstance(node, bytearray)
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            node += part  # the same bytes under all their names, durable or not
            self.after()

    def cut(self, path: Path, end: int) -> None:
        """Truncate a file."""
        super().cut(path, end)
        node = self._get(path)
        assert isinstance(node, bytearray)
        del node[end:]
        self.after()

    def link(self, source: Path, target: Path) -> None:
        """Add a second name for a file."""
        super().link(source, target)
        self._set(target, self._get(source))
        self.after()

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file."""
        super().replace(source, target)
        self._set(target, self._get(source))
        self._set(source, None)
        self.after()

    def remove(self, path: Path) -> None:
        """Remove a file."""
        super().remove(path)
        self._set(path, None)
        self.after()

    def make(self, folder: Path) -> None:
        """Make a folder."""
        super().make(folder)
        self._set(folder, VolatileFolder())
        self.after()

    def sync(self, folder: Path) -> None:
        """Sync a folder."""
        super().sync(folder)
        self._folder(folder).sync()
        self.after()
