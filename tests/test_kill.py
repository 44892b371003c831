"""SIGKILL at random instants: the campaign ends as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from alloop.loop.history import read
from tests.conftest import fingerprint_of, write_toy

BURN = {"burn": 0.03}  # CPU seconds a label, so that kills meet work
LEVELS = {
    "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, **BURN},
    "expensive": {"kind": "toy", **BURN},
}
COMMAND = (sys.executable, "-m", "alloop", "run")


def start(campaign: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, str(campaign), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(campaign: Path) -> dict[str, str]:
    process = start(campaign)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()
    return fingerprint_of(campaign.with_name("toy.zarr"))


def kill_driver(campaign: Path, delay: float) -> bool:
    """Start, wait, SIGKILL; whether the driver was still at work."""
    process = start(campaign)
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    finally:
        process.stderr.close()
    return False


def journal_length(campaign: Path) -> int:
    store = campaign.with_name("toy.zarr")
    return len(read(store).entries) if store.exists() else 0


def kill_often(folder: Path, seed: int, kills: int) -> tuple[int, dict[str, str]]:
    """Kill a campaign until it has met so many kills, begun anew where it finished."""
    rng = random.Random(seed)
    met, round_ = 0, 0
    while True:
        campaign = write_toy(folder / str(round_), levels=LEVELS)
        while met < kills and kill_driver(campaign, rng.uniform(0.8, 2.5)):
            met += 1
        result = finish(campaign)
        if met >= kills:
            return met, result
        round_ += 1


def test_twenty_kills_of_the_driver_change_nothing(tmp_path: Path) -> None:
    alone = finish(write_toy(tmp_path / "alone", levels=LEVELS))
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(kill_often, tmp_path / str(seed), seed, 10) for seed in (1, 2)
        ]
        results = [job.result() for job in jobs]
    assert sum(met for met, _ in results) >= 20
    for _, result in results:
        assert result == alone


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def wait_for(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_killed_workers_and_driver_on_a_real_cluster_change_nothing(
    tmp_path: Path,
) -> None:
    cluster = {"kind": "local", "workers": 2}
    alone = finish(write_toy(tmp_path / "alone", levels=LEVELS, cluster=cluster))
    campaign = write_toy(tmp_path / "hit", levels=LEVELS, cluster=cluster)
    process = start(campaign)
    assert wait_for(lambda: journal_length(campaign) > 12, 60)
    victims = workers_of(process)
    assert victims
    victims[0].kill()
    assert wait_for(lambda: journal_length(campaign) > 25, 60)
    everyone = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert wait_for(lambda: not any(child.is_running() for child in everyone), 20)
    assert finish(campaign) == alone


NETWORK = {
    "potential": {"kind": "painn", "channels": 8, "layers": 1},
    "training": {
        "kind": "asteroid",
        "every": 4,
        "teacher": 30,
        "pretrain": 30,
        "finetune": 30,
    },
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="pairwise"),
        pytest.param(NETWORK, id="painn", marks=pytest.mark.slow),
    ],
)
def test_a_kill_on_real_chemistry_changes_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    levels = {
        "cheap": {"kind": "pyscf", "method": "hf", "basis": "sto-3g"},
        "expensive": {"kind": "pyscf", "method": "mp2", "basis": "6-31g"},
    }
    cluster = {"kind": "local", "workers": 2}
    real = {"levels": levels, "limits": {}, "cluster": cluster, **changes}
    alone = finish(write_toy(tmp_path / "alone", **real))
    campaign = write_toy(tmp_path / "hit", **real)
    process = start(campaign)
    assert wait_for(lambda: journal_length(campaign) > 30, 120)
    process.kill()
    process.communicate()
    assert finish(campaign) == alone
