"""Real processes that get real signals: drivers, workers, nannies, schedulers."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from alloop.history.reader import read_history
from alloop.store.journal import FOLDER
from alloop.store.packs import list_journal
from benchmarks.ruins import Trial
from benchmarks.theirs import Driver, Theirs, workers_of
from benchmarks.toys import (
    TALLY,
    Noted,
    Print,
    committed_twice,
    labelled,
    made,
    made_in,
    redone,
    tally,
    write_tiny,
)

WAIT = 0.05  # s a label, so that kills meet some
LOCAL = {"kind": "local", "workers": 2}
VICTIMS = ("driver", "worker", "all", "term", "int")  # with a cluster of one's own
THEIRS = ("driver", "worker", "nanny", "scheduler", "all")  # with somebody's
_LIMIT = 300.0  # s


def start(campaign: Path) -> Driver:
    """`alloop run`, in a session of its own."""
    own = {TALLY: str(campaign.with_name("tally")), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(campaign), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **own},
    )


def finish(campaign: Path) -> str:
    """Run a campaign to its end; what is wrong with that, "" if nothing is."""
    driver = start(campaign)
    _, said = driver.communicate(timeout=_LIMIT)
    fine = driver.returncode == 0
    return "" if fine else f"exit {driver.returncode}: {said.decode()[-300:]}"


def records(campaign: Path) -> int:
    """How many records the campaign's journal has."""
    folder = campaign.with_name("toy.zarr") / FOLDER
    with contextlib.suppress(FileNotFoundError):
        return list_journal(folder).last + 1
    return 0


def wait_for(condition: Callable[[], bool], seconds: float = _LIMIT) -> bool:
    """Whether the condition comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True


# --- hits ----------------------------------------------------------------------------


@dataclass(slots=True)
class Hunt:
    """A campaign that is hit again and again, at random instants of a seed."""

    campaign: Path
    victim: str
    rng: random.Random
    theirs: Theirs | None = None
    driver: Driver | None = None
    lost: list[float] = field(default_factory=list)

    def hit(self, at: int) -> str:
        """Hit the victim soon after record `at`; what went wrong at once."""
        driver = self._running()
        self._grown(driver, at)
        time.sleep(self.rng.uniform(0, 0.1))
        if driver.poll() is not None:
            return ""
        begun = time.monotonic()
        wrong = self._strike(driver)
        before = records(self.campaign)
        driver = self._running()
        self._grown(driver, before)
        self.lost.append(time.monotonic() - begun)
        return wrong

    def _grown(self, driver: Driver, length: int) -> None:
        """Wait for more records than these, or for the driver's end."""

        def grown() -> bool:
            if self.theirs is not None:
                self.theirs.ensure()  # a nanny leaves soon after its scheduler
            return records(self.campaign) > length or driver.poll() is not None

        wait_for(grown)

    def _running(self) -> Driver:
        if self.theirs is not None:
            self.theirs.ensure()
        if self.driver is None:
            self.driver = start(self.campaign)
        return self.driver

    def _strike(self, driver: Driver) -> str:
        if self.victim in ("term", "int"):
            return self._ask(driver)
        workers = workers_of(driver) if self.theirs is None else self.theirs.workers()
        if self.victim in ("worker", "all") and workers:
            for worker in workers[: None if self.victim == "all" else 1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        if self.theirs is not None:
            wanted = {"nanny": ["nanny0"], "scheduler": ["scheduler"]}
            wanted["all"] = list(self.theirs.processes)
            self.theirs.kill(wanted.get(self.victim, []))
        if self.victim in ("driver", "all"):
            driver.kill()
            self._over(driver)
        return ""

    def _ask(self, driver: Driver) -> str:
        term = self.victim == "term"
        driver.send_signal(signal.SIGTERM if term else signal.SIGINT)
        code = self._over(driver)
        return "" if code in (0, 3) else f"exit {code} after a {self.victim}"

    def _over(self, driver: Driver) -> int:
        driver.communicate(timeout=_LIMIT)
        self.driver = None
        return int(driver.returncode)

    def end(self) -> str:
        """Let the campaign come to its end; what is wrong with that."""
        if self.driver is not None:
            self._grown(self.driver, 10**9)
            if self.driver.poll() is None:
                self.driver.kill()
                return f"it hangs after record {records(self.campaign)}"
            _, said = self.driver.communicate(timeout=_LIMIT)
            if self.driver.returncode == 0:
                return ""
            return f"exit {self.driver.returncode}: {said.decode()[-300:]}"
        if self.theirs is not None:
            self.theirs.ensure()
        return finish(self.campaign)


def alone(folder: Path, cluster: dict[str, Any] | None = None) -> tuple[Print, Noted]:
    """What a campaign makes that nobody hits, and how often it labels."""
    campaign = write_tiny(folder, WAIT, 1, cluster=cluster or {"kind": "inline"})
    wrong = finish(campaign)
    if wrong:
        raise RuntimeError(wrong)
    return made_in(campaign.with_name("toy.zarr")), tally(campaign.with_name("tally"))


def hunted(
    folder: Path, victim: str, seed: int, kills: int, expected: tuple[Print, Noted]
) -> Iterator[Trial]:
    """A campaign hit so many times; a trial for each hit, the first with the counts.

    victim: one of `VICTIMS`, or `their` and one of `THEIRS`.
    """
    rng, theirs = random.Random(seed), None
    cluster: dict[str, Any] = LOCAL
    if victim.startswith("their "):
        theirs = Theirs(folder / "tally", 20000 + rng.randrange(20000))
        cluster = {"kind": "address", "address": theirs.address}
    campaign = write_tiny(folder, WAIT, 1, cluster=cluster)
    hunt = Hunt(campaign, victim.removeprefix("their "), rng, theirs)
    try:
        wrong = [hunt.hit(at) for at in sorted(rng.sample(range(3, 38), kills))]
        wrong.append(hunt.end())
    finally:
        if theirs is not None:
            theirs.end()
    said = "; ".join(filter(None, wrong))
    yield from told(campaign, victim, said, hunt.lost, expected)


def told(
    campaign: Path,
    victim: str,
    wrong: str,
    lost: Sequence[float],
    expected: tuple[Print, Noted],
) -> Iterator[Trial]:
    """A trial for each hit, by the seconds that it cost; the first tells what became of
    the campaign.
    """
    history = read_history(campaign.with_name("toy.zarr"))
    noted = tally(campaign.with_name("tally"))
    differs = wrong or "another dataset" * (made(history) != expected[0])
    again = redone(noted, expected[1], labelled(history))
    first = Trial(victim, "", differs, committed_twice(history), again)
    for index, seconds in enumerate(lost):
        later = Trial(victim, f"kill {index}", seconds=seconds)
        yield later if index else _timed(first, seconds)


def _timed(trial: Trial, seconds: float) -> Trial:
    return Trial(trial.fault, "kill 0", trial.wrong, trial.twice, trial.redone, seconds)
