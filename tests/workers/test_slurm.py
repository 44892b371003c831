"""Campaigns on a real Slurm, which this test starts in a folder."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from alloop.cli.prepare_commands import job_script
from alloop.history.reader import read_history
from alloop.loop import events as e
from benchmarks.durability.comparison import store_contents
from tests.conftest import wait_for, write_toy
from tests.workers.test_spool import DASKS_PATIENCE, counted
from tests.workers.tiny_slurm import missing, slurm

pytestmark = pytest.mark.slow


def levels(burn: float) -> dict[str, object]:
    return {
        "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, "burn": burn / 10},
        "expensive": {"kind": "toy", "burn": burn},
    }


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with slurm(tmp_path_factory.mktemp("slurm") / "one") as variables:
        yield variables


def run(campaign: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alloop", "run", str(campaign), "--quiet"]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def alone(folder: Path, burn: float) -> dict[str, str]:
    campaign = write_toy(folder, levels=levels(burn), cluster={"kind": "local"})
    process = run(campaign)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return store_contents(campaign.with_name("toy.zarr"))


def jobs(env: dict[str, str], name: str) -> list[str]:
    ask = ["squeue", "-h", "-n", name, "-t", "R", "-o", "%A"]
    done = subprocess.run(ask, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def length(campaign: Path) -> int:
    store = campaign.with_name("toy.zarr")
    return len(read_history(store).entries) if store.exists() else 0


def test_a_cancelled_job_costs_a_campaign_nothing_but_time(
    env: dict[str, str], tmp_path: Path
) -> None:
    """Labels and learning have jobs of their own; what they say travels over TLS."""
    job = {"cores": 1, "memory": "1 GB"}
    cluster = {
        "kind": "slurm",
        "walltime": "10 min",
        "interface": "lo",
        "labels": {**job, "adaptive": {"maximum": 2}},
        "learning": job,
    }
    odd = tmp_path / "it's $(a) %J place"
    campaign = write_toy(odd, levels=levels(1.0), cluster=cluster)
    process = run(campaign, env)
    wait_for(lambda: length(campaign) > 12, 120, 0.5)
    victim = jobs(env, "alloop-label")[0]
    subprocess.run(["scancel", victim], env=env, check=True)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    history = read_history(campaign.with_name("toy.zarr"))
    lost = [x for _, x in history.events() if isinstance(x, e.TaskLost)]
    assert lost == []  # no label pays for the job it ran in
    assert store_contents(campaign.with_name("toy.zarr")) == alone(tmp_path, 1.0)
    logs = campaign.with_name("toy.zarr.jobs")
    assert f"JOB {victim}" in "".join(x.read_text() for x in logs.glob("*.err"))
    assert not jobs(env, "alloop-label")
    assert not jobs(env, "alloop-learn")


def test_a_dead_driver_takes_no_label_along(
    env: dict[str, str], tmp_path: Path
) -> None:
    """The scheduler dies with it; the job ends the label in hand and leaves."""
    cluster = {"kind": "slurm", "walltime": "10 min", "interface": "lo"}
    cluster |= {"labels": {"cores": 1, "memory": "1 GB", "adaptive": {"maximum": 1}}}
    campaign, lines = counted(tmp_path / "hit", 0.1, cluster=cluster)
    hold, held = (Path(f"{lines}.{word}") for word in ("hold", "held"))
    there = {**env, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = run(campaign, there)
    wait_for(lambda: lines.exists() and len(lines.read_text().split()) >= 3, 200, 0.5)
    hold.touch()
    wait_for(held.exists, 60, 0.5)
    process.kill()
    process.communicate()
    time.sleep(DASKS_PATIENCE)
    assert jobs(env, "alloop-label")
    hold.unlink()
    frame = held.read_text()
    wait_for(lambda: frame in lines.read_text().split(), 30, 0.5)
    wait_for(lambda: not jobs(env, "alloop-label"), 60, 0.5)
    process = run(campaign, there)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert set(Counter(lines.read_text().split()).values()) == {1}


def test_a_driver_in_a_job_stops_before_its_limit_and_submits_itself_until_done(
    env: dict[str, str], tmp_path: Path
) -> None:
    local = {"kind": "local", "workers": 2}
    campaign = write_toy(tmp_path / "job", levels=levels(2.0), cluster=local)
    script = campaign.with_name("toy.slurm.sh")
    text = job_script("slurm", campaign.name, sys.executable)
    text = text.replace("--time=24:00:00", "--time=00:01:00")
    script.write_text(text.replace("B:USR1@60", "B:USR1@1").replace("8G", "2G"))
    command = ["sbatch", script.name]
    subprocess.run(command, env=env, cwd=script.parent, check=True)
    wait_for(lambda: not _waiting(env), 600, 0.5)
    outputs = sorted(script.parent.glob("toy.*.out"), key=lambda x: x.stat().st_mtime)
    texts = [output.read_text() for output in outputs]
    assert len(texts) >= 2
    assert all("stopped; continue with" in text for text in texts[:-1]), texts
    assert "the campaign is done" in texts[-1]
    assert not any("DUE TO TIME LIMIT" in text for text in texts)
    shown = ["scontrol", "show", "job", "-o"]
    told = subprocess.run(shown, env=env, capture_output=True, text=True).stdout
    mine = [line for line in told.splitlines() if "JobName=toy " in line]
    assert all("JobState=COMPLETED" in line for line in mine), mine
    expected = alone(tmp_path / "alone", 2.0)
    assert store_contents(campaign.with_name("toy.zarr")) == expected


def _waiting(env: dict[str, str]) -> list[str]:
    ask = ["squeue", "-h", "-o", "%A %j"]
    done = subprocess.run(ask, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()
