"""A real Slurm of one node in a folder: munged, slurmctld and slurmd."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "scontrol")
CONF = """
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there is no Slurm here, after an attempt to install it; None if there is."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a Slurm of our own needs root"
    if not any(shutil.which(name) is None for name in NEEDED):
        return None
    if shutil.which("apt-get") is None:
        return "no Slurm here, and no apt-get to install it with"
    asked = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    asked += ["slurm-wlm", "munge"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(asked, capture_output=True, env=env, timeout=300)
    except subprocess.TimeoutExpired:
        return "no Slurm here; apt-get install slurm-wlm did not end"
    if done.returncode or any(shutil.which(name) is None for name in NEEDED):
        return f"no Slurm here; apt-get install slurm-wlm ended with {done.returncode}"
    return None


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which the tiny Slurm answers; it ends with the context."""
    for name in ("run", "state", "spool"):
        (folder / name).mkdir(parents=True)
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)  # munge refuses what others cannot pass
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    text = CONF.format(host=socket.gethostname(), ports=_ports(), folder=folder)
    conf.write_text(text)
    env = {**os.environ, "SLURM_CONF": str(conf)}
    munge = [f"--{x}={folder}/{y}" for x, y in _munge_files()]
    try:
        _start(["munged", "--force", *munge], env)
        _start(["slurmctld"], env)
        _start(["slurmd", "-c"], env)
        _idle(env)
        yield env
    finally:
        run = subprocess.run
        run(["scancel", "-u", "root"], env=env, check=False)
        time.sleep(2)
        run(["scontrol", "shutdown"], env=env, check=False, capture_output=True)
        time.sleep(2)
        run(["munged", "--stop", *munge], check=False, capture_output=True)


def _munge_files() -> list[tuple[str, str]]:
    return [
        ("key-file", "munge.key"),
        ("socket", "run/munge.socket"),
        ("pid-file", "munge.pid"),
        ("log-file", "munge.log"),
        ("seed-file", "munge.seed"),
    ]


def _start(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"


def _idle(env: dict[str, str]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        ask = ["sinfo", "-h", "-o", "%T"]
        done = subprocess.run(ask, env=env, capture_output=True, text=True)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    raise AssertionError(f"the node is {done.stdout or done.stderr}")


def _ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
