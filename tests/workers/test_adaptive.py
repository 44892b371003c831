"""Clusters whose workers come and go: an own adaptive one, one that others scale."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alloop.campaign import Campaign
from alloop.config import load_campaign
from alloop.config.setup import cluster_plan
from alloop.planning.plan_table import worker_count
from alloop.workers import adaptive
from alloop.workers.cluster_plan import ClusterPlan
from alloop.workers.connection import connect_cluster
from benchmarks.durability.comparison import campaign_contents, store_contents
from tests.config.toy_campaign import TOY, problems
from tests.conftest import write_toy

ADAPTIVE = {"kind": "local", "adaptive": {"minimum": 1, "maximum": 3}}


def test_processes_follow_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "IDLE_CHECKS", 1)
    link = connect_cluster(ClusterPlan(workers=1, adaptive=(1, 3)))
    try:
        scheduler, counts = link.cluster.scheduler, set()
        futures = [
            link.client.submit(_slow_square, x, pure=False, key=("group", x))
            for x in range(12)
        ]
        until = time.monotonic() + 60
        while any(not x.done() for x in futures) and time.monotonic() < until:
            counts.add(len(scheduler.workers))
            time.sleep(0.05)
        results = [future.result() for future in futures]
        while len(scheduler.workers) > 1 and time.monotonic() < until:
            time.sleep(0.1)
        counts.add(len(scheduler.workers))
        # of ended processes too: nothing that was computed was lost
        assert results == [x * x for x in range(12)]
        assert [future.result() for future in futures] == results
        assert {1, 3} <= counts <= {1, 2, 3}
        assert len(scheduler.workers) == 1
    finally:
        link.close()


def _slow_square(x: int) -> int:
    time.sleep(0.4)
    return x * x


def test_a_campaign_s_plan_names_the_most_processes(tmp_path: Path) -> None:
    setup = load_campaign(write_toy(tmp_path, cluster=ADAPTIVE))
    plan = cluster_plan(setup.plan)
    assert (plan.workers, plan.adaptive) == (1, (1, 3))
    assert worker_count(setup) == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("adaptive: {minimum: 3, maximum: 2}", "expected `minimum` up to `maximum`"),
        ("workers: 2, adaptive: {maximum: 2}", "leave one out"),
        ("gpus: 1, adaptive: {maximum: 2}", "leave one out"),
        ("adaptive: {}", "maximum"),
    ],
)
def test_other_numbers_are_refused(keys: str, words: str, tmp_path: Path) -> None:
    found = problems(TOY + f"cluster: {{kind: local, {keys}}}", tmp_path)
    assert words in " ".join([*found, *found.values()])


SCALER = """
import random, sys, time
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
    )
    print(cluster.scheduler_address, flush=True)
    numbers = random.Random(1)
    while True:
        time.sleep(1.0)
        cluster.scale(numbers.choice([1, 2, 3]))
        print(len(cluster.scheduler.workers), flush=True)
"""


@pytest.mark.slow
def test_a_cluster_that_another_process_scales(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "levels": {
            "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, "burn": 0.1},
            "expensive": {"kind": "toy", "burn": 0.3},
        }
    }
    alone = write_toy(tmp_path / "alone", **changes)
    Campaign.from_yaml(alone).run()
    script = tmp_path / "scaler.py"
    script.write_text(SCALER)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as scaler:
        try:
            assert scaler.stdout is not None
            address = {"kind": "address", "address": scaler.stdout.readline().strip()}
            there = write_toy(tmp_path / "there", cluster=address, **changes)
            campaign = Campaign.from_yaml(there)
            assert campaign.run().exit_code == 0
        finally:
            scaler.kill()
        sizes = {int(line) for line in scaler.stdout}
    assert len(sizes) > 1
    expected = store_contents(alone.with_name("toy.zarr"))
    assert campaign_contents(campaign.history()) == expected
