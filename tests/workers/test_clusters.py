"""Real clusters: an own one, a foreign one, one that is not there."""

import logging
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster, Security

from alloop.campaign import Campaign
from alloop.config import load_campaign
from alloop.config.yaml_text import ConfigError, changed_keys
from alloop.core.errors import InputError, StoreError
from alloop.core.records import Walker
from alloop.driver.run import RunObserver
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Train
from alloop.workers import time_limits
from alloop.workers.batch_jobs import job_spec, new_credentials
from alloop.workers.batch_systems import BATCH_SYSTEMS
from alloop.workers.cluster_plan import (
    LABEL,
    LEARN,
    ClusterPlan,
    TlsFiles,
    available_cores,
)
from alloop.workers.connection import _worker_pids, connect_cluster
from alloop.workers.dask_pool import DaskPool, open_pool
from alloop.workers.pools import Task
from benchmarks.durability.comparison import campaign_contents, store_contents
from tests.conftest import LOCAL, write_toy

PBS = {
    "kind": "pbs",
    "queue": "workq",
    "account": "chemistry",
    "walltime": "2 h",
    "interface": "lo",
    "labels": {"cores": 8, "memory": "32 GB", "adaptive": {"minimum": 1, "maximum": 4}},
    "learning": {"cores": 4, "memory": "16 GB", "gpus": 1},
    "directives": ["-l place=scatter"],
    "prologue": ["module load gcc"],
}


def test_the_names_of_older_files_mean_the_same(tmp_path: Path) -> None:
    labels = {"cores": 8, "memory": "32 GB", "jobs": {"least": 1, "most": 4}}
    old, new = (
        load_campaign(write_toy(tmp_path / name, cluster=cluster))
        for name, cluster in (("old", {**PBS, "labels": labels}), ("new", PBS))
    )
    assert old.plan.cluster == new.plan.cluster
    assert "adaptive:\n      minimum: 1\n      maximum: 4" in old.text
    stored = new.text.replace("adaptive:", "jobs:").replace("minimum:", "least:")
    assert changed_keys(stored.replace("maximum:", "most:"), new.text) == ()
    both = {**labels, "adaptive": {"maximum": 2}}
    with pytest.raises(ConfigError, match=r"labels\.jobs: is the old name of `adap"):
        load_campaign(write_toy(tmp_path / "both", cluster={**PBS, "labels": both}))


def test_a_campaign_runs_on_a_cluster_of_the_users_and_leaves_it_running(
    tmp_path: Path,
) -> None:
    alone = write_toy(tmp_path / "alone")
    Campaign.from_yaml(alone).run()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **LOCAL) as cluster,
        Client(cluster) as client,
    ):
        campaign = Campaign.from_yaml(write_toy(tmp_path / "theirs"))
        assert campaign.run(client=client).exit_code == 0
        assert client.submit(sum, [1, 2]).result() == 3
        address = {"kind": "address", "address": cluster.scheduler_address}
        again = Campaign.from_yaml(write_toy(tmp_path / "by_address", cluster=address))
        assert again.run().exit_code == 0
    expected = store_contents(alone.with_name("toy.zarr"))
    assert campaign_contents(campaign.history()) == expected
    assert campaign_contents(again.history()) == expected


def test_a_scheduler_that_is_not_there_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(*given: Any, timeout: float, **more: Any) -> Client:
        return Client(*given, timeout=timeout / 10, **more)

    monkeypatch.setattr("distributed.Client", impatient)
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    plan = ClusterPlan("address", address="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9") as refused:
        open_pool(plan, setup.worker_settings)
    assert "\n" not in str(refused.value)
    assert available_cores() >= 1


def test_a_dead_scheduler_is_replaced_and_no_task_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On the way, nothing of the cluster can be reached from other machines."""
    alone = write_toy(tmp_path / "alone")
    Campaign.from_yaml(alone).run()
    pools: list[DaskPool] = []
    opened = DaskPool.__init__

    def seen(pool: DaskPool, *arguments: object) -> None:
        opened(pool, *arguments)
        pools.append(pool)

    monkeypatch.setattr(DaskPool, "__init__", seen)
    turns, places = [], set()

    def kill(_state: object, turn: e.Turn) -> None:
        turns.append(turn)
        if len(turns) == 20:
            places.update(ip for ip, _ in listening())
            cluster = pools[0]._connection.cluster
            cluster.sync(cluster.scheduler.close)

    one = {"kind": "local", "workers": 1}
    campaign = Campaign.from_yaml(write_toy(tmp_path / "hit", cluster=one))
    with caplog.at_level(logging.WARNING, "alloop"):
        assert campaign.run(observer=RunObserver(observe=kill)).exit_code == 0
    assert "the scheduler is gone" in caplog.text
    assert not any(isinstance(turn.event, e.TaskLost) for turn in turns)
    assert campaign_contents(campaign.history()) == store_contents(
        alone.with_name("toy.zarr")
    )
    assert places == {"127.0.0.1"}


def listening() -> set[tuple[str, int]]:
    """Addresses and ports where this process and its children listen."""
    me = psutil.Process()
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def intruder(ports: list[str]) -> list[str]:
    """What answers to somebody who has not this run's keys, but others."""
    strange = Security.temporary().get_connection_args("client")["ssl_context"]
    tries = [(port, kind) for port in ports for kind in ("plain", "tls")]
    return [
        f"{kind}:{port}"
        for port, kind in tries
        if _said(int(port), strange if kind == "tls" else None)
    ]


def _said(port: int, context: ssl.SSLContext | None) -> bytes:
    """What a server says unless it refuses: no TLS alert, and no page that is not
    there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as plain:
            wrapped = plain if context is None else context.wrap_socket(plain)
            try:
                said: bytes = wrapped.recv(100)  # a scheduler speaks first
            except TimeoutError:
                wrapped.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                said = wrapped.recv(100)
    except OSError:
        return b""
    refused = said.startswith((b"\x15", b"HTTP/1.1 404"))
    return b"" if refused else said


def test_nobody_without_the_run_s_keys_can_talk_to_an_own_cluster() -> None:
    link = connect_cluster(ClusterPlan("local", 1))
    try:
        assert link.client.submit(sum, [1, 2]).result(timeout=30) == 3
        (worker,) = _worker_pids(link.cluster)
        os.kill(worker, signal.SIGKILL)  # its successor is no more open
        until = time.monotonic() + 30
        while _worker_pids(link.cluster) in ([], [worker], [None]):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert link.client.submit(sum, [2, 2]).result(timeout=30) == 4
        ports = sorted({str(port) for _, port in listening()})
        scheduler = link.cluster.scheduler_address.rpartition(":")[2]
        assert scheduler in ports
        assert intruder(ports) == []
    finally:
        link.close()


def test_the_intruder_does_open_what_has_no_keys() -> None:
    settings = {"n_workers": 0, "processes": False, "protocol": "tcp://"}
    with LocalCluster(**settings, **LOCAL) as cluster:
        port = cluster.scheduler_address.rpartition(":")[2]
        assert f"plain:{port}" in intruder([port])


def test_what_a_worker_refuses_for_want_of_time_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal retires the worker; the task is no worse for it."""
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    settings = {"n_workers": 1, "processes": False, "protocol": "tcp://"}
    with LocalCluster(**settings, **LOCAL) as cluster, Client(cluster) as client:
        pool = DaskPool(ClusterPlan("address"), setup.worker_settings, client)
        monkeypatch.setenv(time_limits.LIFE, "100")
        monkeypatch.setenv(time_limits.UNTIL, "0")  # over long ago
        level = setup.levels["cheap"].id
        command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
        pool.submit(Task(command, 1, span=time_limits.TaskSpan(1.0, 2.0)))
        old = set(client.scheduler_info()["workers"])
        assert pool.next(20.0) is None
        assert old & set(client.scheduler_info()["workers"]) == set()
        monkeypatch.delenv(time_limits.UNTIL)
        cluster.scale(2)
        done = pool.next(30.0)
        assert isinstance(done.event, e.Labelled)  # type: ignore[union-attr]
        pool.close()


def test_labels_and_learning_ask_for_workers_of_their_own(tmp_path: Path) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    cheap = setup.levels["cheap"].id
    label = LabelFrame(setup.start[0], cheap, "cheap", "seed", 0)
    walker = Walker(0, 0, setup.start[0], setup.start[0].positions)
    explore = Explore(1, 0, 0, 1, "m", (walker,), 1, 1, 0)
    tasks = [Task(label, 1), Task(Train(1, (), (), ()), 1), Task(explore, 1)]
    sent: list[object] = []

    class Client:
        def submit(self, work: object, *_: object, **options: object) -> "Client":
            if work is not int:  # the placeholder of a group
                sent.append(options["resources"])
            return self

        def add_done_callback(self, _: object) -> None:
            return

    for plan in (ClusterPlan("address", apart=True), ClusterPlan("address")):
        pool = DaskPool(plan, setup.worker_settings, Client())
        for task in tasks:
            pool.submit(task)
    assert sent == [{LABEL: 1}, {LEARN: 1}, {LEARN: 1}, None, None, None]


def test_the_scheduler_counts_tasks_of_all_rounds(tmp_path: Path) -> None:
    """It queues the tasks of a large group only; others wait behind busy workers."""
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    level, sizes = setup.levels["cheap"].id, []

    def count_tasks(dask_scheduler: Any) -> tuple[int, list[int]]:
        groups = [
            len(group)
            for name, group in dask_scheduler.task_groups.items()
            if name.startswith("alloop-")
        ]
        return len(dask_scheduler.tasks), groups

    settings = {"n_workers": 1, "processes": False, "protocol": "tcp://"}
    with LocalCluster(**settings, **LOCAL) as cluster, Client(cluster) as client:
        pool = DaskPool(ClusterPlan("address"), setup.worker_settings, client)
        for attempt in (1, 2, 3):
            command = LabelFrame(setup.start[0], level, "cheap", "seed", 0)
            pool.submit(Task(command, attempt))
            assert pool.next(30.0) is not None
            until = time.monotonic() + 10
            while client.run_on_scheduler(count_tasks)[0] > 1:  # until it is forgotten
                assert time.monotonic() < until
                time.sleep(0.01)
            sizes.append(client.run_on_scheduler(count_tasks)[1])
        pool.close()
    assert sizes == [[2], [3], [4]]  # the placeholder is one of them


def test_a_label_longer_than_any_job_is_refused_before_it_is_sent(
    tmp_path: Path,
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path, cluster=PBS)).setup
    command = LabelFrame(setup.start[0], "x", "cheap", "seed", 0)
    pool = DaskPool(setup.cluster, setup.worker_settings, client=object())
    with pytest.raises(InputError, match="raise `cluster: walltime`"):
        pool.submit(Task(command, 1, span=time_limits.TaskSpan(1e5, 1e5)))


def test_only_who_has_the_credentials_may_talk_to_a_scheduler(tmp_path: Path) -> None:
    security = new_credentials(tmp_path)
    files = [tmp_path / "tls" / f"{name}.pem" for name in ("ca", "cert", "key")]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    right = TlsFiles(*map(str, files))
    wrong = replace(right, ca="", cert="", key="")
    settings = {"n_workers": 1, "processes": False, "protocol": "tls://"}
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    with LocalCluster(**settings, **LOCAL, security=security) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        plan = ClusterPlan("address", address=address, tls=right)
        pool = open_pool(plan, setup.worker_settings)
        pool.close()
        with pytest.raises(InputError, match="give its `tls:` files"):
            open_pool(replace(plan, tls=None), setup.worker_settings)
    assert wrong.security().require_encryption


def made(spec: dict[str, Any], resource: str) -> str:
    """The text of a job's script."""
    address, name = "tls://10.0.0.1:8786", f"{resource}-1"
    script: str = spec["cls"](address, name=name, **spec["options"]).job_script()
    return script


def test_a_pbs_job_script_asks_for_what_the_campaign_says(tmp_path: Path) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path, cluster=PBS)).setup
    batch = setup.cluster.batch
    assert batch is not None
    security = new_credentials(tmp_path)
    scripts = {}
    for resource in (LABEL, LEARN):
        spec = job_spec(batch, resource, tmp_path, security)
        made = spec["cls"](
            "tls://10.0.0.1:8786", name=f"{resource}-1", **spec["options"]
        )
        scripts[resource] = made.job_script()
        check = ["bash", "-n"]
        subprocess.run(check, input=scripts[resource], text=True, check=True)
    label, learn = scripts[LABEL], scripts[LEARN]
    assert "#PBS -l select=1:ncpus=8:mem=32000mb\n" in label
    assert "#PBS -l select=1:ncpus=4:mem=16000mb:ngpus=1\n" in learn
    for line in (
        "-q workq",
        "-A chemistry",
        "-l walltime=02:00:00",
        "-l place=scatter",
    ):
        assert f"#PBS {line}\n" in label
    assert "module load gcc\n" in label
    assert "export ALLOOP_UNTIL=$(( $(date +%s) + 7200 ))" in label
    command = label.splitlines()[-1]
    for words in (
        "--nworkers 8",
        "--nthreads 1",
        "--resources LABEL=1",
        "--interface lo",
    ):
        assert words in command
    assert f"--tls-key {tmp_path}/tls/key.pem" in command
    assert "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'" in label
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL=1s" in label
    assert "--nworkers" not in learn  # one task at a time, on all cores
    assert "--lifetime 7110s --lifetime-stagger 30s" in command
    assert sys.executable in command


STUB = """#!/bin/sh
mkdir -p ran && cd ran && exec bash "$1"
"""


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_job_script_takes_any_folder_and_python_word_for_word(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a $(touch hit) `touch hit`;'b' \"c\" %J"
    odd.mkdir()
    python = odd / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done > words\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    said = {**PBS, "kind": system, "directives": ["--comment hello"]}
    said["prologue"] = ["echo hello > said"]
    setup = Campaign.from_yaml(write_toy(odd, cluster=said)).setup
    assert setup.cluster.batch is not None
    folder = odd / "toy.zarr.jobs"
    folder.mkdir()
    spec = job_spec(setup.cluster.batch, LABEL, folder, new_credentials(folder))
    script = made(spec, LABEL)
    stub, file = tmp_path / "submit", tmp_path / "job"
    stub.write_text(STUB)
    stub.chmod(0o755)
    file.write_text(script)
    subprocess.run([stub, file], cwd=tmp_path, check=True)
    words = (tmp_path / "ran" / "words").read_text().split("\n")
    for name in ("ca", "cert", "key"):
        assert str(folder / "tls" / f"{name}.pem") in words
    assert (tmp_path / "ran" / "said").exists()
    assert not [*tmp_path.rglob("hit")]
    mark = {"slurm": "#SBATCH ", "pbs": "#PBS ", "lsf": "#BSUB ", "sge": "#$ "}[system]
    lines = [x.removeprefix(mark) for x in script.splitlines() if x.startswith(mark)]
    logs = [shlex.split(x)[1] for x in lines if x[:2] in ("-e", "-o")]
    places = [x.partition("/alloop-label-%J")[0].rstrip("/") for x in logs]
    expected = str(folder).replace("%", "%%" if system == "slurm" else "%")
    assert places == [expected, expected]


def test_keys_of_a_batch_cluster_go_with_it_and_those_of_a_dead_one_before(
    tmp_path: Path,
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path, cluster=PBS)).setup
    folder, elsewhere = tmp_path / "jobs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "key.pem").write_text("of somebody")
    folder.mkdir()
    keys = folder / "tls"
    keys.symlink_to(elsewhere)  # as a folder from elsewhere might have it
    with pytest.raises(StoreError, match="symbolic link"):
        connect_cluster(replace(setup.cluster, folder=folder))
    keys.unlink()
    link = connect_cluster(replace(setup.cluster, folder=folder))
    assert keys.stat().st_mode & 0o777 == 0o700
    old = (keys / "key.pem").read_text()
    assert all(x.stat().st_mode & 0o777 == 0o600 for x in keys.iterdir())
    assert intruder(sorted({str(port) for _, port in listening()})) == []
    link.close()
    assert not keys.exists()
    keys.mkdir()
    (keys / "key.pem").write_text(old)  # of a run that was killed
    new_credentials(folder)
    assert (keys / "key.pem").read_text() != old
    assert (elsewhere / "key.pem").read_text() == "of somebody"


def test_one_group_of_workers_does_everything(tmp_path: Path) -> None:
    one = {key: value for key, value in PBS.items() if key != "learning"}
    setup = Campaign.from_yaml(write_toy(tmp_path, cluster=one)).setup
    plan = setup.cluster
    assert plan.batch is not None
    assert not plan.separate
    spec = job_spec(plan.batch, LABEL, tmp_path)
    assert "--resources" not in made(spec, LABEL)
    assert "--tls" not in made(spec, LABEL).splitlines()[-1]


@pytest.mark.parametrize("system", ["slurm", "lsf"])
def test_a_batch_system_that_refuses_is_quoted(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / BATCH_SYSTEMS[system].program
    refusing.write_text("#!/bin/sh\necho 'no such partition' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("alloop.workers.connection._SCALE", 0.0)
    cluster = {**PBS, "kind": system}
    campaign = Campaign.from_yaml(write_toy(tmp_path, cluster=cluster))
    with pytest.raises(InputError, match="no such partition") as refused:
        campaign.run()
    assert "\n" not in str(refused.value)


def test_a_worker_of_this_machine_has_the_card_and_the_others_make_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    link = connect_cluster(ClusterPlan("local", workers=2, gpus=1))
    try:
        link.client.wait_for_workers(2, timeout=60)
        workers = link.client.scheduler_info()["workers"].values()
        assert sorted(next(iter(x["resources"])) for x in workers) == [LABEL, LEARN]
        ask = (os.getenv, "CUDA_VISIBLE_DEVICES", "any")
        given = {
            kind: link.client.submit(*ask, resources={kind: 1}, key=kind)
            for kind in (LABEL, LEARN)
        }
        said = {kind: future.result(timeout=60) for kind, future in given.items()}
        assert said == {LABEL: "any", LEARN: "0"}
    finally:
        link.close()
