"""Trials of signals at random instants, to drivers, workers, nannies and schedulers."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from alloop.campaign import Campaign
from alloop.core.errors import AlloopError
from alloop.history.reader import read_history
from alloop.store.journal import FOLDER
from alloop.store.lock import LOCK
from benchmarks.durability.comparison import (
    Reference,
    Trial,
    campaign_contents,
    count_duplicates,
    count_relabelled,
    labelled_frames,
    store_contents,
)
from benchmarks.durability.file_systems import read_tree
from benchmarks.durability.processes import (
    TIME_LIMIT,
    ExternalCluster,
    ForkServer,
    Process,
    count_records,
    describe_exit,
    find_workers,
    finish_campaign,
    start_driver,
    wait_until,
)
from benchmarks.durability.toy_campaign import read_label_log, write_campaign

TARGETS = (
    *("driver", "worker", "all", "term", "int"),  # with an embedded cluster
    *(f"external {x}" for x in ("driver", "worker", "nanny", "scheduler", "all")),
)
_LABEL_SECONDS = 0.05  # so that kills hit some labels
_DRIVER = """
import os
from pathlib import Path
from alloop.campaign import Campaign
from alloop.core.errors import AlloopError
from benchmarks.durability.toy_campaign import LABEL_LOG
def work(path):
    os.environ[LABEL_LOG] = str(Path(path).with_name("labels.log"))
    try:
        Campaign.from_yaml(path).run()
    except AlloopError as error:
        Path(path).with_name("error").write_text(str(error))
        os._exit(error.exit_code)
"""
_ERROR = "error"  # the file in which a forked driver leaves its message


def run_reference(folder: Path) -> Reference:
    """Run the toy campaign undisturbed in a process of its own."""
    cluster = {"kind": "inline"}
    campaign = write_campaign(folder, _LABEL_SECONDS, 1, cluster=cluster)
    if problem := finish_campaign(campaign):
        raise RuntimeError(problem)
    log = read_label_log(campaign.with_name("labels.log"))
    return Reference(store_contents(campaign.with_name("toy.zarr")), log)


# --- forked drivers ------------------------------------------------------------------


def driver_server() -> ForkServer:
    """Return a server of drivers that do all work themselves; close it."""
    return ForkServer(_DRIVER)


def driver_kill_trials(
    server: ForkServer, folder: Path, seed: int, kills: int, reference: Reference
) -> Iterator[Trial]:
    """Yield a trial for each SIGKILL of a forked driver, at random instants of a seed.

    The first trial has the counts of the whole campaign.
    """
    campaign, rng = write_campaign(folder, _LABEL_SECONDS, 1), random.Random(seed)
    pid, seconds = server.spawn(campaign), list[float]()
    for record in sorted(rng.sample(range(30), kills)):
        wait_until(partial(_is_beyond, campaign, record))
        time.sleep(rng.uniform(0, 0.1))
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(pid, signal.SIGKILL)
        server.wait()
        before, pid = count_records(campaign), server.spawn(campaign)
        wait_until(partial(_is_beyond, campaign, before))
        seconds.append(time.monotonic() - begun)
    status = server.wait()
    problem = f"the driver ended with {status}" if status else ""
    yield from _trials(campaign, "forked driver", problem, seconds, reference)


def _is_beyond(campaign: Path, record: int) -> bool:
    return count_records(campaign) > record


def halted_driver_trial(
    server: ForkServer, folder: Path, record: int, *, unlocked: bool
) -> str:
    """Halt a driver by SIGSTOP after a record while another starts; let it go on.

    unlocked: the file of the lock is removed meanwhile, so that the other one takes
    over. Returns what went wrong, "" if nothing did; the store is FOLDER/toy.zarr.
    """
    campaign = write_campaign(folder, _LABEL_SECONDS, 1)
    store, pid = campaign.with_name("toy.zarr"), server.spawn(campaign)
    wait_until(partial(_is_beyond, campaign, record))
    os.kill(pid, signal.SIGSTOP)
    if unlocked:
        (store / FOLDER / LOCK).unlink()
    try:
        Campaign.from_yaml(campaign).run()
        refused = ""
    except AlloopError as error:
        refused = str(error)
    before = read_tree(store)
    os.kill(pid, signal.SIGCONT)
    status, error_file = server.wait(), campaign.with_name(_ERROR)
    said = error_file.read_text() if error_file.exists() else ""
    if not unlocked:
        right = status == 0 and f"is in use by process {pid} " in refused
        return "" if right else f"{refused}; then the halted one: {status} {said}"
    if refused or "stop one of the two" not in said:
        return f"{refused}; then the halted one: {status} {said}"
    after = read_tree(store)
    changed = [x for x in {**before, **after} if before.get(x) != after.get(x)]
    return f"the halted driver changed {', '.join(changed)}" if changed else ""


def copied_store_trial(server: ForkServer, folder: Path, record: int) -> str:
    """Copy the store of a running driver after a record, and resume the copy.

    Returns what went wrong with either, "" if nothing did; the stores are
    FOLDER/toy.zarr and FOLDER/copy.zarr.
    """
    campaign = write_campaign(folder, _LABEL_SECONDS, 1)
    store, copy = (campaign.with_name(f"{x}.zarr") for x in ("toy", "copy"))
    pid = server.spawn(campaign)
    wait_until(partial(_is_beyond, campaign, record))
    os.kill(pid, signal.SIGSTOP)
    shutil.copytree(store, copy)
    try:
        Campaign.from_store(copy, trust=True).run()
        said = ""
    except AlloopError as error:
        said = str(error)
    os.kill(pid, signal.SIGCONT)
    status = server.wait()
    return said or (f"the driver ended with {status}" if status else "")


# --- clusters ------------------------------------------------------------------------


def signal_trials(
    folder: Path, target: str, seed: int, hits: int, reference: Reference
) -> Iterator[Trial]:
    """Yield a trial for each time that the target, one of `TARGETS`, is hit.

    The first trial has the counts of the whole campaign.
    """
    rng, external = random.Random(seed), None
    cluster: dict[str, Any] = {"kind": "local", "workers": 2}
    if target.startswith("external "):
        external = ExternalCluster(folder / "labels.log", 20000 + rng.randrange(20000))
        cluster = {"kind": "address", "address": external.address}
    campaign = write_campaign(folder, _LABEL_SECONDS, 1, cluster=cluster)
    run = HitCampaign(campaign, target.removeprefix("external "), rng, external)
    try:
        problems = [run.hit(at) for at in sorted(rng.sample(range(3, 38), hits))]
        problems.append(run.finish())
    finally:
        if external is not None:
            external.close()
    problem = "; ".join(filter(None, problems))
    yield from _trials(campaign, target, problem, run.seconds, reference)


@dataclass(slots=True)
class HitCampaign:
    """A campaign that is hit again and again, soon after chosen records.

    seconds: from each hit until the next record.
    """

    campaign: Path
    target: str
    rng: random.Random
    external: ExternalCluster | None = None
    driver: Process | None = None
    seconds: list[float] = field(default_factory=list)

    def hit(self, record: int) -> str:
        """Hit the target soon after a record; return what went wrong at once."""
        driver = self._start()
        self._wait_beyond(driver, record)
        time.sleep(self.rng.uniform(0, 0.1))
        if driver.poll() is not None:
            return ""
        begun = time.monotonic()
        problem = self._send_signals(driver)
        before = count_records(self.campaign)
        driver = self._start()
        self._wait_beyond(driver, before)
        self.seconds.append(time.monotonic() - begun)
        return problem

    def finish(self) -> str:
        """Let the campaign come to its end; return what went wrong."""
        if self.driver is not None:
            self._wait_beyond(self.driver, 10**9)
            if self.driver.poll() is None:
                self.driver.kill()
                return f"it hangs after record {count_records(self.campaign)}"
            _, error = self.driver.communicate(timeout=TIME_LIMIT)
            return describe_exit(self.driver.returncode, error)
        if self.external is not None:
            self.external.start()
        return finish_campaign(self.campaign)

    def _start(self) -> Process:
        if self.external is not None:
            self.external.start()
        if self.driver is None:
            self.driver = start_driver(self.campaign)
        return self.driver

    def _wait_beyond(self, driver: Process, record: int) -> None:
        """Wait for more records than these, or for the driver's end."""

        def reached() -> bool:
            if self.external is not None:
                self.external.start()  # a nanny leaves soon after its scheduler
            return count_records(self.campaign) > record or driver.poll() is not None

        wait_until(reached)

    def _send_signals(self, driver: Process) -> str:
        if self.target in ("term", "int"):
            return self._interrupt(driver)
        external = self.external
        workers = find_workers(driver.pid) if external is None else external.workers()
        if self.target in ("worker", "all") and workers:
            for worker in workers[: None if self.target == "all" else 1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        if external is not None:
            names = {"nanny": ["nanny0"], "scheduler": ["scheduler"]}
            names["all"] = list(external.processes)
            external.kill(names.get(self.target, []))
        if self.target in ("driver", "all"):
            driver.kill()
            self._wait_exit(driver)
        return ""

    def _interrupt(self, driver: Process) -> str:
        term = self.target == "term"
        driver.send_signal(signal.SIGTERM if term else signal.SIGINT)
        code = self._wait_exit(driver)
        return "" if code in (0, 3) else f"exit {code} after a {self.target}"

    def _wait_exit(self, driver: Process) -> int:
        driver.communicate(timeout=TIME_LIMIT)
        self.driver = None
        return int(driver.returncode)


def _trials(
    campaign: Path,
    fault: str,
    problem: str,
    seconds: Sequence[float],
    reference: Reference,
) -> Iterator[Trial]:
    """Yield a trial for each hit, the first with the counts of the whole campaign."""
    history = read_history(campaign.with_name("toy.zarr"))
    log = read_label_log(campaign.with_name("labels.log"))
    if not problem and campaign_contents(history) != reference.contents:
        problem = "another dataset"
    relabelled = count_relabelled(log, reference.log, labelled_frames(history))
    duplicates = count_duplicates(history)
    for index, wait in enumerate(seconds):
        trial = Trial(fault, f"kill {index}", seconds=wait, number=index)
        if index == 0:
            trial = replace(
                trial, problem=problem, duplicates=duplicates, relabelled=relabelled
            )
        yield trial
