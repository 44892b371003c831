"""A labelling program with faults on demand: toy labels that crash, hang or lie."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.units import Floats
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level

_HOG = "import time; hoard = bytearray(700_000_000); time.sleep(3600)"


def faulty_level(fault: str, **gate: float) -> Level:
    """A toy level whose labels all have the fault, with a toy's gate."""
    settings = {
        **toy_level().settings,
        "fault": fault,
        "gate": {"net_force": 1e-4, "torque": 1e-3, "slope": 0.0, **gate},
    }
    return make_level("tests.labels.label_faults:label_with_fault", settings)


def label_with_fault(frame: Frame, settings: Mapping[str, Any]) -> Result:
    fault = settings["fault"]
    if fault in DEEDS:
        DEEDS[fault]()
    result = label_with_toy(frame, settings)
    forces = SPOILS[fault](result.forces) if fault in SPOILS else result.forces
    return replace(result, forces=forces)


def _signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _hang() -> None:
    time.sleep(3600)


def _use_memory() -> None:
    hoard = []
    while True:
        hoard.append(np.ones(1_000_000))  # 8 MB at a time
        time.sleep(1e-3)


def _use_memory_in_grandchild() -> None:
    """Start a grandchild that uses up the memory."""
    subprocess.run([sys.executable, "-c", _HOG], check=True)


def _daemon() -> None:
    """Start a grandchild in a session of its own, which holds none of the pipes."""
    quiet = subprocess.DEVNULL
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    subprocess.Popen(
        sleeper, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    ).returncode = 0  # not waited for


def _exhausted() -> None:
    np.ones(1 << 48)  # 2 PB


def _strict() -> None:
    """Ask for an allocation that the system refuses, as under `ulimit -v`."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, hard))
    np.ones(1 << 30)  # 8 GB


def _full_disk() -> None:
    with open("/dev/full", "wb", buffering=0) as device:  # noqa: PTH123
        device.write(b"amplitudes")


def _garbage() -> None:
    """Write bytes into every pipe that the process holds, as a stray pointer would."""
    for fd in range(3, 64):
        with suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\x00garbage" * 20)


def _close_pipes() -> None:
    """Close every pipe and keep running."""
    os.closerange(0, 64)
    time.sleep(3600)


def _noise() -> None:
    os.write(1, b"a library that talks\n" * 1000)


def _bug() -> None:
    raise AssertionError("a bug in a program")


def _push(forces: Floats) -> Floats:
    forces[0, 0] += 1.0
    return forces


def _nan(forces: Floats) -> Floats:
    forces[0, 0] = np.nan
    return forces


def _drop(forces: Floats) -> Floats:
    forces[0] = 0.0
    return forces


DEEDS: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        "segv": _signal(signal.SIGSEGV),
        "abort": _signal(signal.SIGABRT),
        "killed": _signal(signal.SIGKILL),
        "stopped": _signal(signal.SIGSTOP),
        "exit": lambda: os._exit(3),
        "hang": _hang,
        "hog": _use_memory,
        "brood": _use_memory_in_grandchild,
        "daemon": _daemon,
        "exhausted": _exhausted,
        "strict": _strict,
        "full disk": _full_disk,
        "garbage": _garbage,
        "mute": _close_pipes,
        "noise": _noise,
        "bug": _bug,
    }
)
SPOILS: Mapping[str, Callable[[Floats], Floats]] = MappingProxyType(
    {
        "push": _push,
        "nan": _nan,
        "drop": _drop,
        "scale": lambda forces: 1.05 * forces,
        "flip": lambda forces: -forces,
        "swap": lambda forces: forces[[1, 0, *range(2, len(forces))]],
        "shape": lambda forces: forces[:-1],
    }
)
