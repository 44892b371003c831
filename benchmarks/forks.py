"""Drivers that are forked with all their work inside, so that a kill costs no start of
Python, and many can be afforded.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.kills import WAIT, records, told, wait_for
from benchmarks.ruins import Trial
from benchmarks.toys import Noted, Print, write_tiny
from tests.store.conftest import Nursery

_LAST = 30  # no kill waits for more records
_SCRIPT = """
import os
from pathlib import Path
from alloop.campaign import Campaign
from benchmarks.toys import TALLY
def work(path):
    os.environ[TALLY] = str(Path(path).with_name("tally"))
    Campaign.from_yaml(path).run()
"""


def nursery() -> Nursery:
    """A process that forks drivers; close it."""
    return Nursery(_SCRIPT)


def forked(
    drivers: Nursery, folder: Path, seed: int, kills: int, expected: tuple[Print, Noted]
) -> Iterator[Trial]:
    """A campaign whose driver is killed so many times, at random instants of a seed; a
    trial for each, the first with the counts.
    """
    campaign, rng = write_tiny(folder, WAIT, 1), random.Random(seed)
    pid, lost = drivers.spawn(campaign), list[float]()
    for at in sorted(rng.sample(range(_LAST), kills)):
        wait_for(partial(_beyond, campaign, at))
        time.sleep(rng.uniform(0, 0.1))
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(pid, signal.SIGKILL)
        drivers.wait()
        before, pid = records(campaign), drivers.spawn(campaign)
        wait_for(partial(_beyond, campaign, before))
        lost.append(time.monotonic() - begun)
    status = drivers.wait()
    wrong = f"the driver ended with {status}" if status else ""
    yield from told(campaign, "forked driver", wrong, lost, expected)


def _beyond(campaign: Path, record: int) -> bool:
    return records(campaign) > record
