"""The file system calls of a store, all in one class, and what is built on them.

`Files` is the seam at which tests make any single operation fail; `create` and `put`
give the two promises that everything else rests on: a file that appears is complete and
on the disk, and a file that must be new never replaces another. What is appended is on
the disk too, but a death may leave its first part alone: `alloop.store.tails`.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from alloop.core.errors import StoreError

# A sync of the bytes and the size alone, without the dates, where the system has it.
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileSystem:
    """One method a system call; each raises OSError as the system does."""

    def write(self, path: Path, data: bytes) -> None:
        """A new file with these bytes, synced; FileExistsError if there is one."""
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def append(self, path: Path, data: bytes, end: int) -> None:
        """More bytes at the end of a file, synced; FileExistsError if it has not `end`
        bytes, FileNotFoundError if there is none."""
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != end:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            file.write(data)
            file.flush()
            _sync(file.fileno())

    def cut(self, path: Path, end: int) -> None:
        """Keep the first `end` bytes of a file alone, synced."""
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file; FileExistsError if the name is taken."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename, atomically replacing what is there."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; nothing happens where there is none."""
        path.unlink(missing_ok=True)

    def make(self, folder: Path) -> None:
        """A new folder; FileExistsError if there is one."""
        folder.mkdir()

    def sync(self, folder: Path) -> None:
        """Bring a folder's entries to the disk."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def create_file(files: FileSystem, path: Path, data: bytes, staging: Path) -> None:
    """A new durable file that appears whole; FileExistsError if the name is taken."""
    with _staged_file(files, data, staging) as temporary:
        files.link(temporary, path)
        files.remove(temporary)
    files.sync(path.parent)


def replace_file(files: FileSystem, path: Path, data: bytes, staging: Path) -> None:
    """A durable file that appears whole, in the place of the one that is there."""
    with _staged_file(files, data, staging) as temporary:
        files.replace(temporary, path)
    files.sync(path.parent)


def write_many(
    files: FileSystem, folder: Path, contents: Mapping[str, bytes], staging: Path
) -> None:
    """Many durable files beneath a folder, each appearing whole, in this order."""
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
    """Make the folder and its missing parents durably; the ones made, outermost first.

    Another process may make them at the same time.
    """
    missing = [f for f in (folder, *folder.parents) if not f.exists()][::-1]
    made: list[Path] = []
    try:
        for each in missing:
            with contextlib.suppress(FileExistsError):
                files.make(each)
                made.append(each)
                files.sync(each.parent)
    except OSError:
        remove_folders(made)
        raise
    return made


def remove_folders(folders: list[Path]) -> None:
    """Remove folders that are empty again, innermost first."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def sweep_staging(folder: Path) -> None:
    """Empty a staging folder of what a killed writer left.

    The folder itself must be none that a link leads to, and links in it are removed,
    not followed. One that is missing is made: not every copy keeps empty folders.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with os.scandir(handle) as entries:
            found = [(x.name, x.is_dir(follow_symlinks=False)) for x in entries]
        for name, is_folder in found:
            if is_folder:
                shutil.rmtree(name, dir_fd=handle)
            else:
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError whose sentence names the path and the cure."""
    try:
        yield
    except OSError as error:
        raise StoreError(error_sentence(error, path)) from error


def error_sentence(error: OSError, path: Path) -> str:
    """What went wrong with the path, and what to do."""
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
