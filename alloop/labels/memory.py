"""The peak memory of one label, in a process that makes many."""

import resource
import sys
from pathlib import Path

_PROC = Path("/proc/self")


def reset_peak() -> None:
    """Forget the peak so far, where the system can (Linux, proc(5) clear_refs)."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """Peak resident memory in MB since `reset_peak`, or of the process's whole life."""
    try:
        status = (_PROC / "status").read_text()
    except OSError:
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage / (1e6 if sys.platform == "darwin" else 1e3)
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(float(kilobytes.split()[1]) * 1024 / 1e6, 1)
