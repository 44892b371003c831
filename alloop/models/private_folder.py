"""A folder for what is later run or unpickled: nobody else may put anything there."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def own_folder(path: Path) -> Path:
    """The folder, made for this user alone where it is not there yet.

    Where somebody else owns it or may write in it, or where it is a link, another one
    beside it, the same the next time if possible.
    """
    for name in (path.name, f"{path.name}-own"):
        place = path.with_name(name)
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        if _ours(place.lstat()):
            return place
    return Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))


def _ours(found: os.stat_result) -> bool:
    closed = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and closed
