"""Time limits of runs and workers, and the tasks that can still finish within them.

They affect only the start of tasks, never the decisions of the loop.
"""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from alloop.workers.batch_systems import BATCH_SYSTEMS

UNTIL, LIFE = "ALLOOP_UNTIL", "ALLOOP_LIFE"  # of a worker that a batch system runs
# Reserved for shutting down: 10 % of the limit, within 15 s and 120 s, 30 % at most.
_LEAST, _MUCH, _SHARE, _MOST = 15.0, 0.3, 0.1, 120.0
_VAGUE = 0.5  # tasks that may not fit into a run start only before this fraction
_PATIENCE = 20.0  # s to wait for the batch system's answer


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """The expected wall seconds of a task: likely (0 if unknown) and at most."""

    likely: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The end of a run or job (s since 1970), and its whole duration (s)."""

    at: float
    duration: float

    @classmethod
    def from_now(cls, seconds: float, duration: float | None = None) -> "TimeLimit":
        """Make a limit `seconds` from now; duration: by default the same."""
        return cls(time.time() + seconds, seconds if duration is None else duration)

    @property
    def useful_seconds(self) -> float:
        """Seconds of the duration that are available for tasks."""
        spare = min(_MOST, max(_LEAST, _SHARE * self.duration))
        return self.duration - min(spare, _MUCH * self.duration)

    def seconds_left(self) -> float:
        """Return the seconds until shutting down must begin."""
        return self.at - time.time() - (self.duration - self.useful_seconds)

    def allows(self, span: TaskSpan) -> bool:
        """Return True if a task that starts now ends in time.

        A task whose upper limit exceeds half a run may still start in the first half,
        if it is likely to end in time.
        """
        need = span.most
        if need > _VAGUE * self.useful_seconds:
            need = max(span.likely, min(need, _VAGUE * self.useful_seconds))
        return need < self.seconds_left()


def worker_limit(env: Mapping[str, str] = os.environ) -> TimeLimit | None:
    """Return the limit of the job that this worker runs in, None without one."""
    if UNTIL not in env:
        return None
    return TimeLimit(float(env[UNTIL]), float(env[LIFE]))


def run_limit(
    seconds: float | None, env: Mapping[str, str] = os.environ
) -> TimeLimit | None:
    """Return the earlier of a limit `seconds` from now and that of the batch job."""
    limits = [] if seconds is None else [TimeLimit.from_now(seconds)]
    left = batch_seconds_left(env)
    if left is not None:
        limits.append(TimeLimit.from_now(left))
    return min(limits, key=lambda limit: limit.at, default=None)


def batch_seconds_left(env: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds left to this process's batch job, None without a limit."""
    for system in BATCH_SYSTEMS.values():
        job = system.job_id(env)
        if job is not None:
            return system.seconds_left(job, _command_output)
    return None


def _command_output(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
