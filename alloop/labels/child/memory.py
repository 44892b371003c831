"""The memory of a label: its peak from within, all its processes from outside."""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil

ALLOWED = "ALLOOP_MEMORY_MB"  # tells a child its limit
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


def allowed_mb() -> float:
    """What a label may take here: the child's limit, or all that the machine has."""
    given = os.environ.get(ALLOWED)
    return float(given) if given else psutil.virtual_memory().total / 1e6


def oom_kills() -> int:
    """How often the kernel has killed for want of memory since it was started."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def descendants(pid: int) -> list[int]:
    """Process ids of children and children's children, as far as they can be seen."""
    found = [pid]
    for parent in found:  # grows as it goes
        with suppress(OSError, psutil.Error):
            found += _children(parent)
    return found[1:]


def used_memory_and_cpu(pids: Sequence[int]) -> tuple[float, float]:
    """Resident memory in MB, and CPU seconds spent, of all these processes together.

    Children that have ended count among the seconds of who waited for them.
    """
    memory = seconds = 0.0
    for process in _processes(pids):
        with suppress(psutil.Error), process.oneshot():
            memory += process.memory_info().rss / 1e6
            seconds += sum(process.cpu_times()[:4])
    return memory, seconds


def unshared_mb(pids: Sequence[int]) -> float:
    """Memory in MB with each shared page counted once (slow; Linux, else resident)."""
    total = 0.0
    for process in _processes(pids):
        with suppress(psutil.Error):
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss) / 1e6
    return total


def _processes(pids: Sequence[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with suppress(psutil.Error):
            yield _process(pid)


@lru_cache(maxsize=64)
def _process(pid: int) -> psutil.Process:
    return psutil.Process(pid)  # costs more than what is asked of it


def _children(pid: int) -> list[int]:
    tasks = f"/proc/{pid}/task"
    if not os.path.exists(f"{tasks}/{pid}/children"):  # noqa: PTH110 - asked often
        return [child.pid for child in _process(pid).children()]  # reads all of /proc
    found: list[int] = []
    for task in os.listdir(tasks):  # noqa: PTH208
        with open(f"{tasks}/{task}/children", "rb") as file:  # noqa: PTH123
            found += map(int, file.read().split())
    return found
