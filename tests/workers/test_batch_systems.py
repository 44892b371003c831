"""Batch systems with stand-in commands: records, time left, jobs, campaigns."""

import asyncio
import os
import shlex
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from alloop.campaign import Campaign
from alloop.config.sections.clusters import BATCH_SECTIONS
from alloop.history.reader import read_history
from alloop.loop import events as e
from alloop.workers import time_limits
from alloop.workers.batch_jobs import BatchJobs, job_spec
from alloop.workers.batch_systems import (
    BATCH_SYSTEMS,
    clock_time,
    parse_seconds,
)
from alloop.workers.cluster_plan import LABEL, LEARN
from tests.conftest import write_toy

CLUSTER = {
    "queue": "workq",
    "account": "chemistry",
    "walltime": "90 min",
    "interface": "lo",
    "labels": {"cores": 8, "memory": "32 GB", "adaptive": {"maximum": 4}},
    "learning": {"cores": 1, "memory": "16 GB", "gpus": 2},
    "directives": ["--further"],
}
JOB_OF_SGE = """\
==============================================================
job_number:                 7
hard resource_list:         mem_free=8G,h_rt=3600
script_file:                toy.sge.sh
"""


def stand_in(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose executables come first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("kind", BATCH_SYSTEMS)
def test_a_record_agrees_with_dask_jobqueue(kind: str) -> None:
    system = BATCH_SYSTEMS[kind]
    module, name = system.job_class.split(":")
    job = getattr(import_module(module), name)
    assert job.config_name == kind
    assert job.submit_command == system.program
    assert set(BATCH_SECTIONS[kind].model_fields) >= set(system.site_names)
    assert job.cancel_command


@pytest.mark.parametrize(
    ("kind", "label", "learn"),
    [
        (
            "lsf",
            ["-n 8", "-M 32000000", '-R "span[hosts=1]"', "-W 01:30", '-P "chemistry"'],
            ["-n 1", "-M 16000000", "-gpu num=2"],
        ),
        (
            "sge",
            ["-l mem=4000M", "-pe mpi 8", "-l h_rt=01:30:00", "-P chemistry"],
            ["-l mem=16000M,gpu=2", "-S /bin/bash"],
        ),
    ],
)
def test_a_job_script_asks_for_what_the_campaign_says(
    tmp_path: Path, kind: str, label: list[str], learn: list[str]
) -> None:
    names = {"parallel_environment": "mpi", "memory_resource": "mem"}
    cluster = {**CLUSTER, "kind": kind, **(names if kind == "sge" else {})}
    batch = Campaign.from_yaml(write_toy(tmp_path, cluster=cluster)).setup.cluster.batch
    assert batch is not None
    mark = {"lsf": "#BSUB ", "sge": "#$ "}[kind]
    heads = {}
    for resource in (LABEL, LEARN):
        spec = job_spec(batch, resource, tmp_path)
        job = spec["cls"]("tcp://10.0.0.1:1", name=f"{resource}-1", **spec["options"])
        lines = job.job_script().splitlines()
        heads[resource] = [x.removeprefix(mark) for x in lines if x.startswith(mark)]
    assert set(heads[LABEL]) >= {*label, "-q workq", "--further"}
    assert set(heads[LEARN]) >= {*learn, "-q workq", "--further"}
    assert not any(line.startswith("-pe") for line in heads[LEARN])


def test_only_a_limit_of_lsf_counts_and_no_estimate(
    commands: Path,
) -> None:
    env = {"LSB_JOBID": "7"}
    for text, seconds in (
        ("1:05 L", 3900),
        ("0:00 L", 0),
        ("1:05 E", None),
        ("-", None),
        ("Job <7> is not found", None),
    ):
        stand_in(commands, "bjobs", 'test "$*" = "-noheader -o time_left 7" || exit 1')
        with (commands / "bjobs").open("a") as file:
            file.write(f"echo {shlex.quote(text)}\n")
        assert time_limits.batch_seconds_left(env) == seconds


def test_the_time_left_of_sge_is_its_limit_less_the_time_since_the_start(
    commands: Path,
) -> None:
    env = {"JOB_ID": "7", "SGE_O_WORKDIR": "/"}
    assert time_limits.batch_seconds_left({"JOB_ID": "7"}) is None  # of somebody else
    usage = "usage         1:            wallclock=00:20:00, cpu=00:40:00, io=0.0\n"
    stand_in(commands, "qstat", f"cat <<'END'\n{JOB_OF_SGE}{usage}END")
    assert time_limits.batch_seconds_left(env) == 2400
    start = time.strftime("%m/%d/%Y %H:%M:%S", time.localtime(time.time() - 600))
    row = f"      7 0.55500 toy.sge.sh me           r     {start} all.q@here   1"
    listed = (
        f"if test -z \"$1\"; then echo '{row}'; else cat <<'END'\n{JOB_OF_SGE}END\nfi"
    )
    stand_in(commands, "qstat", listed)
    assert time_limits.batch_seconds_left(env) == pytest.approx(3000, abs=5)
    unlimited = JOB_OF_SGE.replace(",h_rt=3600", "")
    stand_in(commands, "qstat", f"cat <<'END'\n{unlimited}END")
    assert time_limits.batch_seconds_left(env) is None


@pytest.mark.parametrize(
    ("kind", "code", "text", "listed"),
    [
        ("slurm", 0, "6\n7\n", True),
        ("slurm", 0, "6\n", False),
        ("slurm", 1, "slurm_load_jobs error: Unable to contact controller", True),
        ("pbs", 0, "7.host  toy  me  R", True),
        ("pbs", 35, "qstat: 7 Job has finished", False),
        ("lsf", 0, "RUN", True),
        ("lsf", 0, "PEND", True),
        ("lsf", 0, "DONE", False),
        ("lsf", 0, "EXIT", False),
        ("lsf", 255, "Job <7> is not found", False),
        ("lsf", 255, "Failed in an LSF library call: LIM is down; try later", True),
        ("sge", 0, JOB_OF_SGE, True),
        ("sge", 1, "Following jobs do not exist: \n7", False),
        ("sge", 1, "error: commlib error: got select error", True),
    ],
)
def test_a_job_is_over_once_its_system_says_so(
    commands: Path, kind: str, code: int, text: str, listed: bool
) -> None:
    name = BATCH_SYSTEMS[kind].listing[0]
    stand_in(commands, name, f"cat >&2 <<'END'\n{text}\nEND\nexit {code}")

    jobs = SimpleNamespace(_batch=SimpleNamespace(system=kind))
    assert asyncio.run(BatchJobs._is_listed(jobs, "7")) == listed


@pytest.mark.parametrize("seconds", [1.0, 59.6, 3600.0, 90061.0])
def test_a_clock_is_written_as_it_is_read(seconds: float) -> None:
    assert parse_seconds(clock_time(seconds)) == round(seconds)
    minutes = BATCH_SYSTEMS["lsf"].walltime(seconds)
    assert parse_seconds(minutes + ":00") >= seconds  # LSF counts whole minutes


LIVE = {
    "slurm": ("Submitted batch job $!", 'test -d "/proc/$job" && echo $job; true'),
    "pbs": ("$!.here", 'test -d "/proc/$job"'),
    "lsf": (
        "Job <$!> is submitted to queue <normal>.",
        'test -d "/proc/$job" && echo RUN || echo EXIT',
    ),
    "sge": (
        'Your job $! (\\"x\\") has been submitted',
        'test -d "/proc/$job" || { echo Following jobs do not exist: >&2; exit 1; }',
    ),
}


def energies(campaign: Path) -> dict[tuple[str, str], float]:
    history = read_history(campaign.with_name("toy.zarr"))
    labels = [x.label for _, x in history.events() if isinstance(x, e.Labelled)]
    return {(label.frame, label.level): label.energy for label in labels}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(x, marks=[pytest.mark.slow] * (x != "lsf")) for x in BATCH_SYSTEMS],
)
def test_a_campaign_runs_in_jobs_of_a_stand_in_system(
    tmp_path: Path, commands: Path, kind: str
) -> None:
    """Jobs are processes of this machine; their ids are those of the processes."""
    system, log = BATCH_SYSTEMS[kind], tmp_path / "log"
    module, name = system.job_class.split(":")
    cancel = getattr(import_module(module), name).cancel_command.split()[0]
    said, alive = LIVE[kind]
    source = "" if kind == "lsf" else '"$1"'
    copy = f'copy=$(mktemp {tmp_path}/job.XXXX); cat {source} > "$copy"'
    begin = f'setsid bash "$copy" > {log} 2>&1 < /dev/null & echo "{said}"'
    stand_in(commands, system.program, f"{copy}\n{begin}")
    stand_in(commands, cancel, 'kill -- "-${!#}" 2>/dev/null; true')
    if kind == "slurm":
        alive = f"for job in $(cat {tmp_path}/ids 2>/dev/null); do {alive}; done"
        begin += f"\necho $! >> {tmp_path}/ids"
        stand_in(commands, system.program, f"{copy}\n{begin}")
    job = 'job="${!#}"; job="${job%%.*}"'
    stand_in(commands, system.listing[0], f"{job}\n{alive}")
    cluster = {"kind": kind, "walltime": "10 min", "interface": "lo"}
    cluster |= {"labels": {"cores": 1, "memory": "1 GB"}}
    campaign = write_toy(tmp_path / "jobs", cluster=cluster)
    assert Campaign.from_yaml(campaign).run().exit_code == 0
    alone = write_toy(tmp_path / "alone")
    Campaign.from_yaml(alone).run()
    assert energies(campaign) == energies(alone) != {}
