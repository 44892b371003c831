"""Measurements of a label's memory, in its own process and over all its processes."""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil

ALLOWED = "ALLOOP_MEMORY_MB"  # the environment variable with a child's limit
_PROC = Path("/proc/self")


def reset_peak() -> None:
    """Reset the peak memory, where the system can (Linux, proc(5) clear_refs)."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """Return the peak resident memory in MB since `reset_peak`.

    Where the system cannot reset it, it is the peak since the process started.
    """
    try:
        status = (_PROC / "status").read_text()
    except OSError:
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage / (1e6 if sys.platform == "darwin" else 1e3)
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(float(kilobytes.split()[1]) * 1024 / 1e6, 1)


def allowed_mb() -> float:
    """Return the memory in MB that a label may use: the child's limit, or all of it."""
    text = os.environ.get(ALLOWED)
    return float(text) if text else psutil.virtual_memory().total / 1e6


def oom_kills() -> int:
    """Return the number of processes killed for lack of memory since the system start.

    0 where the system does not count them.
    """
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def descendants(pid: int) -> list[int]:
    """Return the process ids of all visible descendants of a process."""
    processes = [pid]
    for parent in processes:  # grows during the loop
        with suppress(OSError, psutil.Error):
            processes += _children(parent)
    return processes[1:]


def used_memory_and_cpu(pids: Sequence[int]) -> tuple[float, float]:
    """Return the resident memory in MB and CPU seconds of all these processes together.

    The CPU time of ended children counts for the process that waited for them.
    """
    memory = seconds = 0.0
    for process in _processes(pids):
        with suppress(psutil.Error), process.oneshot():
            memory += process.memory_info().rss / 1e6
            seconds += sum(process.cpu_times()[:4])
    return memory, seconds


def unshared_mb(pids: Sequence[int]) -> float:
    """Return the memory in MB with each shared page counted once.

    This is slow, and elsewhere than on Linux it is the resident memory.
    """
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
    return psutil.Process(pid)  # creating one costs more than reading its values


def _children(pid: int) -> list[int]:
    tasks = f"/proc/{pid}/task"
    if not os.path.exists(f"{tasks}/{pid}/children"):  # noqa: PTH110 - asked often
        return [child.pid for child in _process(pid).children()]  # reads all of /proc
    children: list[int] = []
    for task in os.listdir(tasks):  # noqa: PTH208
        with open(f"{tasks}/{task}/children", "rb") as file:  # noqa: PTH123
            children += map(int, file.read().split())
    return children
