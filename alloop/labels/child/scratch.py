"""A child's scratch folder, swept up by a later one if its owner was killed."""

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

SETTINGS = (
    "settings.py"  # PySCF runs the user's configuration file unless it is given one
)
_PREFIX = "alloop-label-"
# HDF5 writes these words into errors of many kinds, and does not always set errno.
_TROUBLES = [
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
]


def disk_error(text: str) -> str | None:
    """What a program's words tell of a disk that is full or failing; None for nothing.

    Worth a look at whatever goes wrong: HDF5 loses data without an exception where a
    flush fails in a destructor, and PySCF then takes coupled-cluster gradients of zeros
    (seen: forces wrong by a factor of 2, without net force or torque).
    """
    found = [trouble for trouble in _TROUBLES if trouble in text]
    where = os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir()
    return f"{found[0]} (scratch folder {where})" if found else None


class ScratchFolder:
    """A folder below $PYSCF_TMPDIR (or the system's), locked while its owner lives."""

    def __init__(self) -> None:
        base = os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir()
        _remove_stale(Path(base))
        unlocked = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=base))
        try:
            self._lock = (unlocked / SETTINGS).open("w")
            self._lock.write("DISABLE_EVAL = True\n")  # of what a basis set's text says
            self._lock.flush()
        except OSError:
            unlocked.rmdir()
            raise
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now may others see it: they sweep what is not locked.
        self.folder = unlocked.rename(unlocked.with_name(unlocked.name[4:]))

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_stale(base: Path) -> None:
    """Remove what killed processes left: coupled cluster leaves gigabytes."""
    for file in base.glob(f"{_PREFIX}*/{SETTINGS}"):
        try:
            with file.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.parent, ignore_errors=True)
        except OSError:
            continue  # its owner lives, or it is another user's
