"""File systems that are quick or whose operations fail, and records of all changes.

The file systems replace `alloop.store.files.FileSystem`.

Python reports each file that is opened, renamed or removed (`sys.audit`), whoever does
it. So one undisturbed run yields all states that a SIGKILL could leave behind: before
each operation, and with each new or growing file cut in half. `LimitedSpace` fills the
disk in the same way.
"""

import contextlib
import errno
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from alloop.store import archive, cache, journal
from alloop.store.archive import LOCK
from alloop.store.files import FileSystem
from alloop.store.schema import TABLES

Tree: TypeAlias = dict[str, bytes | None]  # a folder's files, and folders as None
Listener: TypeAlias = Callable[[str, str], None]  # called with an operation and a path
FileCache: TypeAlias = dict[tuple[int, int, int], bytes]  # by inode, time and size

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_FREEING = {"remove", "rmdir", "truncate"}
_TWO_PATHS = ("os.rename", "os.link")  # the new name comes second
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_listeners: list[Listener] = []
_hooks: list[Callable[[str, tuple[Any, ...]], None]] = []


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


# --- changes -------------------------------------------------------------------------


@contextlib.contextmanager
def watch_changes(folder: Path, listener: Listener) -> Iterator[None]:
    """Call `listener(operation, path)` before each change beneath the folder.

    What the listener raises is raised in the place of the operation.
    """
    if not _hooks:  # a hook cannot be removed again
        sys.addaudithook(_audit)
        _hooks.append(_audit)
    _listeners.append(partial(_filter_folder, str(folder), listener))
    try:
        yield
    finally:
        _listeners.clear()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _listeners and (event in _CHANGES or (event == "open" and _writes(*args))):
        listener, path = _listeners.pop(), args[event in _TWO_PATHS]
        operation = event.removeprefix("os.")
        try:  # the listener's own changes are not reported
            listener(operation, "" if isinstance(path, int) else str(path))
        finally:
            _listeners.append(listener)


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    if isinstance(path, int):
        return False
    return bool(set(mode or "") & set("wxa+") or flags & _WRITING)


def _filter_folder(folder: str, listener: Listener, operation: str, path: str) -> None:
    # shutil.rmtree reports bare names
    if path.startswith(f"{folder}/") or not path.startswith("/"):
        listener(operation, path)


# --- states --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class DiskState:
    """A folder before a change, and what the caller's `measure` returned then."""

    change: str
    tree: Tree
    measured: int


def record_states(
    folder: Path, work: Callable[[], object], measure: Callable[[], int]
) -> list[DiskState]:
    """Do the work and return every state that the folder was in, each once."""
    states: list[DiskState] = []
    files: FileCache = {}
    opened = ""  # the file that is being written

    def record(operation: str, path: str) -> None:
        nonlocal opened
        tree, name = read_tree(folder, files), path.removeprefix(f"{folder}/")
        if states and _size(tree, opened) > _size(states[-1].tree, opened):
            states.append(_half_written(states[-1], opened, tree[opened] or b""))
        if not states or states[-1].tree != tree:
            states.append(DiskState(f"{operation} {_part(name)}", tree, measure()))
        opened = name if operation == "open" else ""

    with watch_changes(folder, record):
        work()
    record("end", "")
    return states


def _half_written(before: DiskState, name: str, data: bytes) -> DiskState:
    """Return the state after a death within the write of a file, or of its new end."""
    half = data[: (_size(before.tree, name) + len(data)) // 2]
    tree = {**before.tree, name: half}
    return DiskState(f"write {_part(name)}", tree, before.measured)


def _size(tree: Tree, name: str) -> int:
    return len(tree.get(name) or b"")


def _part(path: str) -> str:
    """Return the part of a store that a path lies in, without names of single files."""
    store, *inner = path.split("/")
    if inner and inner[0] in TABLES:
        return "columns"
    parts = inner[: 2 if inner[:1] == ["journal"] else 1] or [store]
    return "/".join(re.sub(r"[0-9a-f]{8,}", "#", part) for part in parts)


def read_tree(folder: Path, files: FileCache | None = None) -> Tree:
    """Return the content of a folder; `files` keeps what has not changed since."""
    tree: Tree = {}
    files, folders = {} if files is None else files, [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = entry.path.removeprefix(f"{folder}/")
                if entry.is_dir(follow_symlinks=False):
                    tree[name] = None
                    folders.append(entry.path)
                else:
                    tree[name] = _read_file(entry, files)
    return tree


def _read_file(entry: "os.DirEntry[str]", files: FileCache) -> bytes:
    stat = entry.stat()
    key = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if key not in files:
        files[key] = Path(entry.path).read_bytes()
    return files[key]


def write_tree(tree: Tree, folder: Path) -> None:
    """Write a folder with this content."""
    folder.mkdir(parents=True)
    for name in sorted(tree):
        data = tree[name]
        if data is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(data)


def sample_states(states: list[DiskState], number: int) -> list[DiskState]:
    """Return so many states, evenly, and besides the first before each kind of change.

    Their order is kept.
    """
    first = {state.change: state for state in reversed(states)}
    chosen = {id(state) for state in first.values()}
    chosen |= {id(state) for state in states[:: max(1, len(states) // number)]}
    return [state for state in states if id(state) in chosen]


# --- the disk ------------------------------------------------------------------------


@contextlib.contextmanager
def use_file_system(files: FileSystem) -> Iterator[None]:
    """Let stores and label caches write through this file system."""
    modules: tuple[Any, ...] = (archive, cache, journal)
    for module in modules:
        module.FileSystem = lambda: files
    try:
        yield
    finally:
        for module in modules:
            module.FileSystem = FileSystem


class LimitedSpace:
    """A listener for `watch_changes`: a disk with room for `left` more changes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, operation: str, path: str) -> None:
        """Raise OSError where there is no room, with a begun file half written."""
        grows = operation == "open" and Path(path).name != LOCK
        if operation in _FREEING or (Path(path).exists() and not grows):
            return
        self.left -= 1
        if self.left < 0:
            if operation == "open":
                with Path(path).open("ab") as file:
                    file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
