"""The batch systems that workers and drivers may be jobs of, one record each.

A new batch system needs a record in `BATCH_SYSTEMS` only: its section of `cluster:`,
the job script of `alloop init`, the submission of workers and the time left to a job
are made from it. dask-jobqueue's class of jobs, which knows how to cancel one, is named
by its import path, as only a driver with such workers needs it.
"""

import getpass
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

from alloop.workers.cluster_plan import JobGroup

Ask: TypeAlias = Callable[[tuple[str, ...]], str]  # a command's output, "" if it fails


def clock_time(seconds: float) -> str:
    """Return a duration as hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def parse_seconds(clock: str) -> float | None:
    """Parse a time of a batch system, [days-][[hours:]minutes:]seconds.

    None for anything else, such as UNLIMITED.
    """
    days, _, rest = clock.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, days or "0")) or len(parts) > 3:
        return None
    total = 0.0
    for part in parts:
        total = 60 * total + int(part)
    return total + 86400 * int(days or 0)


@dataclass(frozen=True, slots=True)
class SiteName:
    """A word that each site chooses for itself: its usual value, and what it names."""

    usual: str
    meaning: str


@dataclass(frozen=True, slots=True)
class WorkloadManager:
    """A batch system.

    kind: its name in `cluster:`. title: its name in prose. job_class: import path of
    dask-jobqueue's class of jobs. submit: shell line that submits `{script}`. head:
    lines at the head of a driver's job script, with `{name}`. enter: shell line that
    goes to the folder it was submitted in, "" where jobs begin there. variables:
    environment variables that every job has, its id first. seconds_left: takes a job's
    id and a function that runs a command; s, or None without a limit. listing: command
    that tells whether `{job}` has ended. is_listed: takes its exit status, its output
    and the job's id; True also where it did not answer. log_options: takes the quoted
    folder and the stem of the files. demand: takes the jobs and the site's names; the
    options of the class and further lines for the script's head.
    account: the option of the class for the account. walltime: how it writes one.
    site_names: keys of `cluster:` that it alone has.
    """

    kind: str
    title: str
    job_class: str
    submit: str
    head: str
    variables: tuple[str, ...]
    seconds_left: Callable[[str, Ask], float | None]
    listing: tuple[str, ...]
    is_listed: Callable[[int | None, str, str], bool]
    log_options: Callable[[str, str], list[str]]
    demand: Callable[[JobGroup, Mapping[str, str]], tuple[dict[str, Any], list[str]]]
    enter: str = ""
    account: str = "account"
    walltime: Callable[[float], str] = clock_time
    site_names: Mapping[str, SiteName] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """The name of the program that submits jobs."""
        return self.submit.split()[0]

    def job_id(self, env: Mapping[str, str]) -> str | None:
        """Return the id of the job that a process runs in, None outside of jobs."""
        if not all(name in env for name in self.variables):
            return None
        return env[self.variables[0]]


def _slurm_listed(code: int | None, text: str, job: str) -> bool:
    return code != 0 or job in text.split()


def _slurm_logs(folder: str, stem: str) -> list[str]:
    name = folder.replace("%", "%%") + f"/{stem}-%J"  # Slurm expands a single %
    return [f"-e {name}.err", f"-o {name}.out"]


def _slurm_demand(
    job: JobGroup, _names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    return {"job_cpu": job.cores}, [f"--gres=gpu:{job.gpus}"] * bool(job.gpus)


def _pbs_seconds_left(job: str, ask: Ask) -> float | None:
    text = ask(("qstat", "-f", job))
    facts = dict(
        line.strip().split(" = ", 1) for line in text.splitlines() if " = " in line
    )
    limit = parse_seconds(facts.get("Resource_List.walltime", ""))
    used = parse_seconds(facts.get("resources_used.walltime", "0")) or 0.0
    return None if limit is None else max(0.0, limit - used)


def _folder_logs(folder: str, _stem: str) -> list[str]:
    return [f"-e {folder}/", f"-o {folder}/"]


def _pbs_demand(
    job: JobGroup, _names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    select = f"select=1:ncpus={job.cores}:mem={job.memory:.0f}mb"
    return {"resource_spec": select + f":ngpus={job.gpus}" * bool(job.gpus)}, []


def _lsf_seconds_left(job: str, ask: Ask) -> float | None:
    """Read hours:minutes; L marks a limit, E and X an estimate that ends no job."""
    text = ask(("bjobs", "-noheader", "-o", "time_left", job))
    match = re.fullmatch(r"(\d+):(\d\d)(?:\s+L)?", text.strip())
    return None if match is None else 3600.0 * int(match[1]) + 60.0 * int(match[2])


def _lsf_listed(_code: int | None, text: str, _job: str) -> bool:
    return "is not found" not in text and text.strip() not in ("DONE", "EXIT")


def _lsf_logs(folder: str, stem: str) -> list[str]:
    return [f"-e {folder}/{stem}-%J.err", f"-o {folder}/{stem}-%J.out"]


def _lsf_demand(
    job: JobGroup, _names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    options = {"ncpus": job.cores, "mem": round(job.memory * 1e6)}
    return options, [f"-gpu num={job.gpus}"] * bool(job.gpus)


def _lsf_walltime(seconds: float) -> str:
    minutes = ceil(seconds / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _sge_seconds_left(job: str, ask: Ask) -> float | None:
    """Return h_rt less the time since the start.

    Univa Grid Engine tells the time used as `wallclock`; for the others the list of
    jobs has the date of the start.
    """
    text = ask(("qstat", "-j", job))
    limit = re.search(r"^hard resource_list:.*\bh_rt=([\d:]+)", text, re.MULTILINE)
    seconds = None if limit is None else parse_seconds(limit[1])
    if seconds is None:
        return None
    used = re.search(r"^usage .*\bwallclock=([\d:]+)", text, re.MULTILINE)
    if used is not None:
        return max(0.0, seconds - (parse_seconds(used[1]) or 0.0))
    row = re.search(
        rf"^\s*{re.escape(job)}\s.*\s(\d\d/\d\d/\d{{4}} \d\d:\d\d:\d\d)",
        ask(("qstat",)),
        re.MULTILINE,
    )
    if row is None:
        return seconds
    start = time.mktime(time.strptime(row[1], "%m/%d/%Y %H:%M:%S"))
    return max(0.0, seconds - (time.time() - start))


def _sge_listed(_code: int | None, text: str, _job: str) -> bool:
    return "do not exist" not in text


def _sge_demand(
    job: JobGroup, names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the demand in SGE's terms; memory is asked for each slot."""
    spec = f"{names['memory_resource']}={ceil(job.memory / job.cores)}M"
    spec += f",{names['gpu_resource']}={job.gpus}" * bool(job.gpus)
    slots = [f"-pe {names['parallel_environment']} {job.cores}"] * (job.cores > 1)
    return {"resource_spec": spec}, ["-S /bin/bash", *slots]


BATCH_SYSTEMS: Mapping[str, WorkloadManager] = {
    system.kind: system
    for system in (
        WorkloadManager(
            kind="slurm",
            title="Slurm",
            job_class="dask_jobqueue.slurm:SLURMJob",
            submit="sbatch {script}",
            head="""\
#SBATCH --job-name={name}
#SBATCH --time=24:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2                # of the driver; labels have jobs of their own
#SBATCH --mem=8G
#SBATCH --signal=B:USR1@60               # s before the limit
#SBATCH --output={name}.%j.out
""",
            variables=("SLURM_JOB_ID",),
            seconds_left=lambda job, ask: parse_seconds(
                ask(("squeue", "-h", "-j", job, "-o", "%L"))
            ),
            listing=("squeue", "-h", "-o", "%A", "-u", "{user}"),
            is_listed=_slurm_listed,
            log_options=_slurm_logs,
            demand=_slurm_demand,
        ),
        WorkloadManager(
            kind="pbs",
            title="PBS",
            job_class="dask_jobqueue.pbs:PBSJob",
            submit="qsub {script}",
            head="""\
#PBS -N {name}
#PBS -l walltime=24:00:00
#PBS -l select=1:ncpus=2:mem=8gb
#PBS -j oe
""",
            enter='cd "$PBS_O_WORKDIR"',
            variables=("PBS_JOBID",),
            seconds_left=_pbs_seconds_left,
            listing=("qstat", "{job}"),
            is_listed=lambda code, _text, _job: code == 0,
            log_options=_folder_logs,
            demand=_pbs_demand,
        ),
        WorkloadManager(
            kind="lsf",
            title="LSF",
            job_class="dask_jobqueue.lsf:LSFJob",
            submit="bsub < {script}",
            head="""\
#BSUB -J {name}
#BSUB -W 24:00
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -M 8GB
#BSUB -o {name}.%J.out
""",
            variables=("LSB_JOBID",),
            seconds_left=_lsf_seconds_left,
            listing=("bjobs", "-noheader", "-o", "stat", "{job}"),
            is_listed=_lsf_listed,
            log_options=_lsf_logs,
            demand=_lsf_demand,
            account="project",
            walltime=_lsf_walltime,
        ),
        WorkloadManager(
            kind="sge",
            title="SGE",
            job_class="dask_jobqueue.sge:SGEJob",
            submit="qsub {script}",
            head="""\
#$ -N {name}
#$ -S /bin/bash
#$ -cwd
#$ -j y
#$ -l h_rt=24:00:00
#$ -l mem_free=8G
""",
            variables=("JOB_ID", "SGE_O_WORKDIR"),
            seconds_left=_sge_seconds_left,
            listing=("qstat", "-j", "{job}"),
            is_listed=_sge_listed,
            log_options=_folder_logs,
            demand=_sge_demand,
            account="project",
            site_names={
                "parallel_environment": SiteName(
                    "smp", "parallel environment of jobs with several cores"
                ),
                "memory_resource": SiteName(
                    "mem_free", "resource that asks for memory, for each slot"
                ),
                "gpu_resource": SiteName("gpu", "resource that asks for GPUs"),
            },
        ),
    )
}


def listing_command(system: WorkloadManager, job: str) -> list[str]:
    """Return the command that tells whether a job has ended."""
    return [word.format(job=job, user=getpass.getuser()) for word in system.listing]
