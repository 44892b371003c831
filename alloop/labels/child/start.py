"""How a child is started, and what it may cost."""

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
    """What one label may cost, and how long a child lives.

    seconds of wall time and memory_mb of resident memory a label, its child's children
    included; start_seconds for starting the child and importing its program; labels a
    child makes before it is replaced (quantum chemistry leaks).
    """

    seconds: float = 3600.0
    memory_mb: float = 8000.0
    start_seconds: float = 300.0
    labels: int = 500


def start_child(scratch: Path, limits: Limits) -> "subprocess.Popen[bytes]":
    """The supervisor of a new child, in a session of its own; raises OSError."""
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
    """One thread, our import path, a private scratch folder, PySCF as it came."""
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
