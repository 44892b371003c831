"""Checks that the device of a plan is there, without torch in this process."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache

from alloop.config.sections.clusters import BatchSystem, Local
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import Problem
from alloop.core.text import plural

_COUNT = "import torch; print(torch.cuda.device_count())"
_PATIENCE = 120.0  # s: importing torch from a slow disk


def device_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems with `device`, and with the cards that `cluster` has for it.

    This machine is asked only if its own processes do the work.
    """
    cluster, needs_cuda = plan.cluster, plan.device == "cuda"
    if isinstance(cluster, BatchSystem):
        if needs_cuda and not (cluster.learning or cluster.labels).gpus:
            text = "the jobs for training and MD have no card; set their `gpus: 1`"
            yield Problem("device", text)
        return
    needed = cluster.gpus if isinstance(cluster, Local) else 0
    if needed and plan.device == "cpu":
        text = "cards are of no use with `device: cpu`; set `device: cuda`, or leave it"
        yield Problem("cluster.gpus", f"{text} out")
        return
    if cluster.kind == "address" or not (needs_cuda or needed):
        return
    count = card_count()
    if not count:
        text = "expected a CUDA device, torch sees none on this machine; set `cpu`, or"
        yield Problem("device", f"{text} install a torch that is built for it")
    elif needed > count:
        text = f"expected at most {plural(count, 'card')}, which this machine has"
        yield Problem("cluster.gpus", f"{text}, got {needed}")


@cache
def card_count() -> int:
    """Return the number of CUDA devices that torch sees on this machine."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _COUNT],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
        return int(answer.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return 0
