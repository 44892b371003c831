"""A child's scratch folder, swept up by a later one if its owner was killed."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

EMPTY = "settings.py"  # PySCF runs the user's configuration file unless it is given one
_PREFIX = "alloop-label-"


class Scratch:
    """A folder below $PYSCF_TMPDIR (or the system's), locked while its owner lives."""

    def __init__(self) -> None:
        base = os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir()
        _sweep(Path(base))
        unlocked = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=base))
        self._lock = (unlocked / EMPTY).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now may others see it: they sweep what is not locked.
        self.folder = unlocked.rename(unlocked.with_name(unlocked.name[4:]))

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _sweep(base: Path) -> None:
    """Remove what killed processes left: coupled cluster leaves gigabytes."""
    for file in base.glob(f"{_PREFIX}*/{EMPTY}"):
        try:
            with file.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.parent, ignore_errors=True)
        except OSError:
            continue  # its owner lives, or it is another user's
