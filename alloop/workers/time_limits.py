"""Time limits: until when a run or a worker lives, and what can still finish there.

Only when something starts depends on this, never what is decided.
"""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

UNTIL, LIFE = "ALLOOP_UNTIL", "ALLOOP_LIFE"  # of a worker that a batch system runs
# Kept to put everything away in: s, unless that is much of the limit, and 10 % of it.
_LEAST, _MUCH, _SHARE, _MOST = 15.0, 0.3, 0.1, 120.0
_VAGUE = 0.5  # of a run: until then what may or may not fit into one is begun
_PATIENCE = 20.0  # s for the batch system's answer


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """How long a task will take, wall seconds: likely (0 where nobody knows) and at
    most."""

    likely: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """When something ends (seconds since 1970), and how long it may last in all (s)."""

    at: float
    whole: float

    @classmethod
    def from_now(cls, seconds: float, whole: float | None = None) -> "TimeLimit":
        """The limit that many seconds from now; whole: of a run like this one."""
        return cls(time.time() + seconds, seconds if whole is None else whole)

    @property
    def useful_seconds(self) -> float:
        """Seconds of the whole in which something can be done."""
        spare = min(_MOST, max(_LEAST, _SHARE * self.whole))
        return self.whole - min(spare, _MUCH * self.whole)

    def seconds_left(self) -> float:
        """Seconds until it is time to put things away."""
        return self.at - time.time() - (self.whole - self.useful_seconds)

    def allows(self, span: TaskSpan) -> bool:
        """Whether a task that starts now ends in time.

        What at its longest would outlast a whole run starts in the first half of one,
        if it is likely to end.
        """
        need = span.most
        if need > _VAGUE * self.useful_seconds:
            need = max(span.likely, min(need, _VAGUE * self.useful_seconds))
        return need < self.seconds_left()


def worker_limit(env: Mapping[str, str] = os.environ) -> TimeLimit | None:
    """The limit of the job that this worker runs in, None where there is none."""
    if UNTIL not in env:
        return None
    return TimeLimit(float(env[UNTIL]), float(env[LIFE]))


def run_limit(
    seconds: float | None, env: Mapping[str, str] = os.environ
) -> TimeLimit | None:
    """The sooner of a limit of so many seconds and the batch job's own."""
    limits = [] if seconds is None else [TimeLimit.from_now(seconds)]
    left = batch_seconds_left(env)
    if left is not None:
        limits.append(TimeLimit.from_now(left))
    return min(limits, key=lambda due: due.at, default=None)


def batch_seconds_left(env: Mapping[str, str] = os.environ) -> float | None:
    """Seconds left to the Slurm or PBS job that this process runs in, if any."""
    if "SLURM_JOB_ID" in env:
        asked = ("squeue", "-h", "-j", env["SLURM_JOB_ID"], "-o", "%L")
        return parse_seconds(_command_output(asked))
    if "PBS_JOBID" in env:
        return _pbs_seconds_left(_command_output(("qstat", "-f", env["PBS_JOBID"])))
    return None


def parse_seconds(clock: str) -> float | None:
    """Seconds of Slurm's and PBS's [days-][[hours:]minutes:]seconds; None for anything
    else, as UNLIMITED is."""
    days, _, rest = clock.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, days or "0")) or len(parts) > 3:
        return None
    total = 0.0
    for part in parts:
        total = 60 * total + int(part)
    return total + 86400 * int(days or 0)


def _pbs_seconds_left(text: str) -> float | None:
    facts = dict(
        line.strip().split(" = ", 1) for line in text.splitlines() if " = " in line
    )
    whole = parse_seconds(facts.get("Resource_List.walltime", ""))
    used = parse_seconds(facts.get("resources_used.walltime", "0")) or 0.0
    return None if whole is None else max(0.0, whole - used)


def _command_output(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
