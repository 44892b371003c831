"""The start of a child process, and the limits of its labels."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from alloop.labels.child.memory import ALLOWED
from alloop.labels.child.scratch import SETTINGS

_ONE_THREAD = ("OMP", "MKL", "OPENBLAS", "VECLIB_MAXIMUM", "NUMEXPR")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of time and memory of a label, and the number of labels of a child.

    seconds: wall time of a label; memory_mb: resident memory of the child and its
    descendants; start_seconds: time to start the child and import its program; labels:
    number that a child makes before it is replaced (quantum chemistry leaks memory).
    """

    seconds: float = 3600.0
    memory_mb: float = 8000.0
    start_seconds: float = 300.0
    labels: int = 500


def start_child(scratch: Path, limits: Limits) -> "subprocess.Popen[bytes]":
    """Start the supervisor of a new child, in its own session; may raise OSError."""
    module = "alloop.labels.child.supervisor"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **_child_environment(scratch, limits)},
        start_new_session=True,
    )


def _child_environment(scratch: Path, limits: Limits) -> dict[str, str]:
    """Return the environment variables of a child.

    They set one thread, the memory limit, this process's import path, the scratch
    folder, and PySCF's configuration file to the one there.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
    return {
        **threads,
        ALLOWED: f"{limits.memory_mb:g}",
        "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path),
        "PYTHONFAULTHANDLER": "1",
        "PYSCF_CONFIG_FILE": str(scratch / SETTINGS),
        "PYSCF_TMPDIR": str(scratch),
        "TMPDIR": str(scratch),
    }
