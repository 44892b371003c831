"""A folder for files that are later run or unpickled, which only its user can write."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def own_folder(path: Path) -> Path:
    """Return the folder, made for this user alone where it is missing.

    Where somebody else owns it or may write in it, or where it is a link, another one
    beside it is returned, the same the next time if possible.
    """
    for name in (path.name, f"{path.name}-own"):
        place = path.with_name(name)
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        if _ours(place.lstat()):
            return place
    return Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))


def _ours(status: os.stat_result) -> bool:
    closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and closed
