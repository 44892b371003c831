"""The file system calls of a store, all in one class, and the functions built on them.

In tests, a `FileSystem` can make any single operation fail. `create_file` and
`replace_file` give two guarantees that the store relies on: a file that appears is
complete and on the disk, and a file that must be new never replaces another. Appended
bytes are on the disk too, but if the process dies, only their first part may be there:
see `alloop.store.packs`.

A store may come from elsewhere. A symbolic link in it could redirect any file that
alloop writes, or any folder that it empties, to a place outside: nothing is read or
written through links and devices.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from alloop.core.errors import FullDiskError, StoreError

# Syncs the bytes and the size, but not the dates, on systems that have it.
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileSystem:
    """The system calls of a store, a method each, which raise OSError on failure."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file, synced; raise FileExistsError if there is one."""
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def append(self, path: Path, data: bytes, end: int) -> None:
        """Append bytes to a file, synced.

        Raises FileExistsError if its size is not `end` bytes, FileNotFoundError if
        there is none.
        """
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != end:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            file.write(data)
            file.flush()
            _sync(file.fileno())

    def cut(self, path: Path, end: int) -> None:
        """Truncate a file to its first `end` bytes, synced."""
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    def link(self, source: Path, target: Path) -> None:
        """Add a second name for a file; raise FileExistsError if the name is taken."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, atomically replacing the target."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it exists."""
        path.unlink(missing_ok=True)

    def make(self, folder: Path) -> None:
        """Make a folder; raise FileExistsError if there is one."""
        folder.mkdir()

    def sync(self, folder: Path) -> None:
        """Sync a folder's entries to the disk."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def create_file(files: FileSystem, path: Path, data: bytes, staging: Path) -> None:
    """Create a durable file that appears whole; raise FileExistsError if it exists."""
    with _staged_file(files, data, staging) as temporary:
        files.link(temporary, path)
        files.remove(temporary)
    files.sync(path.parent)


def replace_file(files: FileSystem, path: Path, data: bytes, staging: Path) -> None:
    """Write a durable file that appears whole, replacing the one that is there."""
    with _staged_file(files, data, staging) as temporary:
        files.replace(temporary, path)
    files.sync(path.parent)


def write_many(
    files: FileSystem, folder: Path, contents: Mapping[str, bytes], staging: Path
) -> None:
    """Write durable files beneath a folder, in this order, each appearing whole."""
    for key, data in contents.items():
        make_folders(files, (folder / key).parent)
        with _staged_file(files, data, staging) as temporary:
            files.replace(temporary, folder / key)
    for parent in {(folder / key).parent: None for key in contents}:
        files.sync(parent)


@contextlib.contextmanager
def _staged_file(files: FileSystem, data: bytes, staging: Path) -> Iterator[Path]:
    temporary = staging / uuid.uuid4().hex
    try:
        files.write(temporary, data)
        yield temporary
    except OSError:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise


def make_folders(files: FileSystem, folder: Path) -> list[Path]:
    """Make a folder and its missing parents durably.

    Returns the new ones, outermost first. Another process may make them at the same
    time.
    """
    missing = [f for f in (folder, *folder.parents) if not f.exists()][::-1]
    made: list[Path] = []
    try:
        for path in missing:
            with contextlib.suppress(FileExistsError):
                files.make(path)
                made.append(path)
                files.sync(path.parent)
    except OSError:
        remove_folders(made)
        raise
    return made


def remove_folders(folders: list[Path]) -> None:
    """Remove folders that are empty, innermost first."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def sweep_staging(folder: Path) -> None:
    """Remove from a staging folder whatever a killed writer left there.

    The folder itself must not be a symbolic link; links in it are removed, not
    followed. A missing folder is made, since some copies of a store lose empty folders.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with os.scandir(handle) as entries:
            listing = [(x.name, x.is_dir(follow_symlinks=False)) for x in entries]
        for name, is_folder in listing:
            if is_folder:
                shutil.rmtree(name, dir_fd=handle)
            else:
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        kind = FullDiskError if error.errno in _FULL else StoreError
        raise kind(error_sentence(error, path)) from error


def error_sentence(error: OSError, path: Path) -> str:
    """Return a sentence about what went wrong with the path, and what to do."""
    if error.errno in _FULL:
        return (
            f"no space left to write {path}; free some and run again, nothing is lost"
        )
    if error.errno in _FORBIDDEN:
        return (
            f"{path} cannot be written ({error.strerror}); mend its permissions or "
            "choose another place"
        )
    return f"{path} cannot be used: {error.strerror or error}"


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
