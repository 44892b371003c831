"""`alloop run A.yaml B.yaml ...`: campaigns in a row on the same workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from alloop.cli import main
from alloop.history.reader import read_history
from alloop.workers import dask_pool, shared_cluster
from alloop.workers.cluster_plan import ClusterPlan
from alloop.workers.connection import connect_cluster
from alloop.workers.shared_cluster import SharedCluster
from tests.conftest import write_toy

Capture = pytest.CaptureFixture[str]
SHORT = {"cheap": 20, "expensive": 8}


def in_row(folder: Path, *names: str, **changes: object) -> list[str]:
    """Short toy campaigns, each in a folder of its own."""
    budget = {"budget": SHORT, **changes}
    return [str(write_toy(folder / name, name=name, **budget)) for name in names]


def computed(file: str) -> set[tuple[str, str]]:
    store = Path(file).parent / "toy.zarr"
    return set(read_history(store).label_index.computed) if store.exists() else set()


def finished(file: str) -> bool:
    return bool(read_history(Path(file).parent / "toy.zarr").state.finished)


def test_campaigns_run_in_a_row_and_share_labels(
    tmp_path: Path, capsys: Capture
) -> None:
    files = in_row(tmp_path, "a", "b")
    assert main(["run", *files]) == 0
    out = capsys.readouterr().out
    assert "campaign 2 of 2" in out
    assert "2 of 2 campaigns finished" in out
    assert len(computed(files[0])) > 20
    assert computed(files[1]) == set()
    assert all(map(finished, files))
    assert main(["run", *files]) == 0
    assert capsys.readouterr().out.count("finished before: the budget") == 2


def test_one_that_fails_does_not_stop_the_next(tmp_path: Path, capsys: Capture) -> None:
    (bad,) = in_row(tmp_path, "bad", potential={"kind": "none"})
    level = {"kind": "toy", "fail_above": 0.01}
    levels = {"cheap": {"kind": "toy", "stiffness": 0.9}, "expensive": level}
    (failing,) = in_row(tmp_path, "failing", levels=levels)
    (good,) = in_row(tmp_path, "good")
    missing = str(tmp_path / "none.yaml")
    assert main(["run", bad, failing, missing, good]) == 3
    captured = capsys.readouterr()
    assert finished(good)
    assert "1 of 4 campaigns finished" in captured.out
    assert captured.err.count("mend it before its turn comes") == 2
    last = captured.err.splitlines()[-1]
    assert last.startswith(f"not finished: {bad}, {failing}, {missing}; continue with")
    assert main(["run", bad, good]) == 2


def test_two_files_of_one_store_are_refused(tmp_path: Path, capsys: Capture) -> None:
    (file,) = in_row(tmp_path, "a")
    other = Path(file).with_name("other.yaml")
    other.write_text(Path(file).read_text())
    assert main(["run", file, str(other)]) == 2
    assert "expected campaigns with stores of their own" in capsys.readouterr().err
    assert not (tmp_path / "a" / "toy.zarr").exists()


def test_waiting_campaigns_are_listed(tmp_path: Path, capsys: Capture) -> None:
    files = in_row(tmp_path, "a", "b")
    assert main(["run", files[0], "--quiet"]) == 0
    capsys.readouterr()
    assert main(["list", *files, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(x["name"], x["state"]) for x in rows] == [
        ("a", "finished"),
        ("toy", "not started"),
    ]
    assert main(["list", *files]) == 0
    assert "not started" in capsys.readouterr().out


def test_ctrl_c_ends_the_row_and_the_same_command_continues_it(
    tmp_path: Path, capsys: Capture
) -> None:
    slow = {"kind": "toy", "burn": 0.005}
    levels = {"cheap": {**slow, "stiffness": 0.9}, "expensive": slow}
    files = in_row(tmp_path, "a", "b", levels=levels)
    store = tmp_path / "a" / "toy.zarr"

    def interrupt() -> None:
        while not (store.exists() and computed(files[0])):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    Timer(0, interrupt).start()
    assert main(["run", *files]) == 3
    assert f"stopped; continue with: alloop run {files[0]}" in capsys.readouterr().out
    assert not finished(files[0])
    assert not (tmp_path / "b" / "toy.zarr").exists()
    assert main(["run", *files]) == 0
    assert all(map(finished, files))
    assert computed(files[1]) == set()


class Workers:
    """A connection that only notes that it was closed."""

    is_alive = True
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_workers_go_to_the_next_campaign_of_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cluster, "connect_cluster", lambda _plan: Workers())
    cluster: Any = SharedCluster()
    plan = ClusterPlan(workers=2, folder=tmp_path / "a")
    first = cluster.take(plan)
    assert cluster.take(plan) is not first  # in use
    cluster.give_back(plan, first)
    assert cluster.take(ClusterPlan(workers=2, folder=tmp_path / "b")) is first
    cluster.give_back(plan, first)
    other = cluster.take(ClusterPlan(workers=3))
    assert (other is first, first.closed) == (False, 1)
    other.is_alive = False
    cluster.give_back(ClusterPlan(workers=3), other)
    assert cluster.take(ClusterPlan(workers=3)) is not other
    last = cluster.take(plan)
    cluster.give_back(plan, last)
    cluster.close()
    assert (other.closed, last.closed) == (1, 1)


@pytest.mark.slow
def test_idle_workers_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ClusterPlan] = []

    def start(plan: ClusterPlan) -> object:
        started.append(plan)
        return connect_cluster(plan)

    monkeypatch.setattr(shared_cluster, "connect_cluster", start)
    monkeypatch.setattr(dask_pool, "connect_cluster", None)  # by the shared one alone
    local = {"kind": "local", "workers": 1}
    files = in_row(tmp_path, "a", "b", cluster=local)
    assert main(["run", *files, "--quiet"]) == 0
    assert all(map(finished, files))
    assert len(started) == 1


@pytest.mark.slow
def test_a_row_goes_on_after_a_kill(tmp_path: Path) -> None:
    slow = {"kind": "toy", "burn": 0.02}
    levels = {"cheap": {**slow, "stiffness": 0.9}, "expensive": slow}
    files = in_row(tmp_path, "a", "b", levels=levels, seed=3)
    files += in_row(tmp_path, "c", levels=levels, seed=4)
    command = [sys.executable, "-m", "alloop", "run", *files, "--quiet"]
    for file in files:  # killed once in each campaign
        with subprocess.Popen(command) as process:
            while not (Path(file).parent / "toy.zarr" / "zarr.json").exists():
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            process.kill()
    assert subprocess.run(command, timeout=120).returncode == 0
    assert all(map(finished, files))
    shares = [computed(file) for file in files]
    assert sum(map(len, shares)) == len(set.union(*shares))
    assert shares[1] == set()
