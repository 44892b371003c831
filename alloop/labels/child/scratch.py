"""The scratch folder of a child, removed by a later child if its owner was killed."""

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

SETTINGS = (
    "settings.py"  # PySCF runs the user's configuration file unless it is given one
)
STARTED_IN = "ALLOOP_STARTED_IN"  # the environment variable with a child's first folder
_PREFIX = "alloop-label-"
# HDF5 puts these texts into many kinds of errors, and does not always set errno.
_TROUBLES = [
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
]


def disk_error(text: str) -> str | None:
    """Return the error of a full or failing disk in a program's output, or None.

    Every failure should be checked for it: HDF5 loses data without an exception if a
    flush fails in a destructor, and PySCF then computes coupled-cluster gradients from
    zeros (observed: forces wrong by a factor of 2, without net force or torque).
    """
    troubles = [trouble for trouble in _TROUBLES if trouble in text]
    where = os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir()
    return f"{troubles[0]} (scratch folder {where})" if troubles else None


def started_in() -> Path:
    """Return the working folder of the command, also in a child, which has its own."""
    return Path(os.environ.get(STARTED_IN) or Path.cwd())


class ScratchFolder:
    """A folder in $PYSCF_TMPDIR or the system's, locked while its owner is alive."""

    def __init__(self) -> None:
        base = _scratch_base()
        sweep_scratch()
        unlocked = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=base))
        try:
            self._lock = (unlocked / SETTINGS).open("w")
            self._lock.write("DISABLE_EVAL = True\n")  # of code in a basis set's text
            self._lock.flush()
            (unlocked / "work").mkdir()
        except OSError:
            shutil.rmtree(unlocked, ignore_errors=True)
            raise
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Renamed only when locked, since others remove unlocked folders of this name.
        self.folder = unlocked.rename(unlocked.with_name(unlocked.name[4:]))

    @property
    def empty(self) -> Path:
        """The working folder of the child, in which programs find no files of others.

        PySCF takes a file there for a basis set of its name.
        """
        return self.folder / "work"

    def remove(self) -> None:
        """Remove the folder and its contents."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _scratch_base() -> Path:
    return Path(os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir()).absolute()


def sweep_scratch() -> None:
    """Remove the folders of killed processes: coupled cluster leaves gigabytes."""
    for file in _scratch_base().glob(f"{_PREFIX}*/{SETTINGS}"):
        try:
            with file.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.parent, ignore_errors=True)
        except OSError:
            continue  # its owner is alive, or it belongs to another user
