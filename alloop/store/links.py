"""Checks for links and devices in a store: nothing is read or written through them.

A store may come from elsewhere. A symbolic link in it could redirect any file that
alloop writes, or any folder that it empties, to a place outside.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from alloop.core.errors import StoreError

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def find_links(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield all entries beneath a folder that are neither plain files nor folders.

    Yields the path and a phrase that tells its kind. Links are not followed; entries
    that disappear meanwhile are skipped.
    """
    waiting = [folder]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(inner) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                yield Path(entry.path), _entry_kind(Path(entry.path))


def refuse_links(folder: Path) -> None:
    """Raise StoreError unless all entries of a folder are plain files or folders."""
    for path, kind in find_links(folder):
        raise link_error(path, kind)


def refuse_link(path: Path) -> None:
    """Raise StoreError if the path exists, but is neither a plain file nor a folder."""
    kind = _entry_kind(path)
    if kind:
        raise link_error(path, kind)


def link_error(path: Path, kind: str) -> StoreError:
    """Return the error for such an entry."""
    return StoreError(
        f"expected a plain file or folder at {path}, it is {kind}, and what alloop "
        "writes might land elsewhere; put the file itself in its place"
    )


def _entry_kind(path: Path) -> str:
    """Return the kind of a path in words; "" for a plain file, a folder, or nothing."""
    try:
        mode = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    plain = mode in (stat.S_IFREG, stat.S_IFDIR)
    return "" if plain else _KINDS.get(mode, "no plain file")
