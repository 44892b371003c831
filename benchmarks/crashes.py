"""Deaths that need no process to die: what was on the disk at any instant.

Python tells of every file that is opened, named or removed (`sys.audit`), whoever does
it. So one undisturbed run yields all states that a SIGKILL could leave behind: before
each operation, and with each new file, or what is added to one, cut in half. A full
disk is played the same way.
"""

import contextlib
import errno
import os
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
Listener: TypeAlias = Callable[[str, str], None]
_DEEDS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_FREEING = {"remove", "rmdir", "truncate"}
_TWO = ("os.rename", "os.link")  # the new name comes second
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_listeners: list[Listener] = []
_hooked: list[bool] = []


@contextlib.contextmanager
def listening(folder: Path, listener: Listener) -> Iterator[None]:
    """Call listener(deed, path) before each change beneath the folder; what it raises
    comes in the place of the deed.
    """
    if not _hooked:  # a hook cannot be taken away again
        sys.addaudithook(_heard)
        _hooked.append(True)
    _listeners.append(partial(_within, str(folder), listener))
    try:
        yield
    finally:
        _listeners.clear()


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if _listeners and (event in _DEEDS or (event == "open" and _writes(*args))):
        listener, path = _listeners.pop(), args[event in _TWO]
        try:  # deaf to what the listener itself does
            listener(
                event.removeprefix("os."), "" if isinstance(path, int) else str(path)
            )
        finally:
            _listeners.append(listener)


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    return not isinstance(path, int) and bool(
        set(mode or "") & set("wxa+") or flags & _WRITES
    )


def _within(folder: str, listener: Listener, deed: str, path: str) -> None:
    if path.startswith(f"{folder}/") or not path.startswith(
        "/"
    ):  # rmtree gives bare names
        listener(deed, path)


# --- states --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A state of a folder: what was about to be done then, and what `seen` told."""

    deed: str
    tree: Tree
    seen: int


def moments(
    folder: Path, work: Callable[[], object], seen: Callable[[], int]
) -> list[Moment]:
    """Every state, each once, that the folder was in while the work was done."""
    found: list[Moment] = []
    known: dict[tuple[int, int, int], bytes] = {}
    opened = ""  # the file that is being written

    def look(deed: str, path: str) -> None:
        nonlocal opened
        tree, place = tree_of(folder, known), path.removeprefix(f"{folder}/")
        if found and _size(tree, opened) > _size(found[-1].tree, opened):
            found.append(_torn(found[-1], opened, tree[opened] or b""))
        if not found or found[-1].tree != tree:
            found.append(Moment(f"{deed} {_part(place)}", tree, seen()))
        opened = place if deed == "open" else ""

    with listening(folder, look):
        work()
    look("end", "")
    return found


def _torn(before: Moment, name: str, data: bytes) -> Moment:
    """As if the process had died while it wrote the file, or the end of it."""
    half = data[: (_size(before.tree, name) + len(data)) // 2]
    return Moment(f"write {_part(name)}", {**before.tree, name: half}, before.seen)


def _size(tree: Tree, name: str) -> int:
    return len(tree.get(name) or b"")


def _part(path: str) -> str:
    """The part of a store that a path lies in, without the names of single files."""
    store, *inner = path.split("/")
    if inner and inner[0] in TABLES:
        return "columns"
    parts = inner[: 2 if inner[:1] == ["journal"] else 1] or [store]
    return "/".join(re.sub(r"[0-9a-f]{8,}", "#", part) for part in parts)


def tree_of(folder: Path, known: dict[tuple[int, int, int], bytes]) -> Tree:
    """All that lies in a folder; `known` remembers what has not changed since."""
    tree: Tree = {}
    for root, folders, files in os.walk(folder):
        place = root.removeprefix(str(folder))[1:]
        tree |= {str(Path(place, name)): None for name in folders}
        for name in files:
            said = Path(root, name).stat()
            key = (said.st_ino, said.st_mtime_ns, said.st_size)
            if key not in known:
                known[key] = Path(root, name).read_bytes()
            tree[str(Path(place, name))] = known[key]
    return tree


def restore(tree: Tree, folder: Path) -> None:
    """Write a state of a folder anew, at another place."""
    folder.mkdir(parents=True)
    for name in sorted(tree):
        data = tree[name]
        if data is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(data)


def sample(found: list[Moment], number: int) -> list[Moment]:
    """So many of them, evenly, and the first of each kind of deed besides."""
    kinds = {moment.deed: moment for moment in reversed(found)}
    chosen = {id(moment) for moment in kinds.values()}
    chosen |= {id(moment) for moment in found[:: max(1, len(found) // number)]}
    return [moment for moment in found if id(moment) in chosen]


# --- the disk ------------------------------------------------------------------------


@contextlib.contextmanager
def disk(files: FileSystem) -> Iterator[None]:
    """Whoever writes to a store or a label cache writes through this one."""
    places: tuple[Any, ...] = (archive, cache, journal)
    for place in places:
        place.FileSystem = lambda: files
    try:
        yield
    finally:
        for place in places:
            place.FileSystem = FileSystem


class Space:
    """A disk with room for so many more files and ends of files, then for none."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, deed: str, path: str) -> None:
        """OSError where there is no room; what was begun lies there, in part."""
        grows = deed == "open" and Path(path).name != LOCK
        if deed in _FREEING or (Path(path).exists() and not grows):
            return
        self.left -= 1
        if self.left < 0:
            if deed == "open":
                with Path(path).open("ab") as file:
                    file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
