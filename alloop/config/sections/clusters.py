"""The `cluster:` section: one block of YAML for each kind of cluster."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from alloop.config.sections.base import (
    Duration,
    Line,
    Loose,
    Memory,
    ParallelCount,
    Section,
    Whole,
    Word,
    by_kind,
    union_tag,
)

ProcessCount: TypeAlias = Annotated[int, Field(ge=1, le=4096)]  # of one machine
Lines: TypeAlias = Annotated[tuple[Line, ...], Loose]


class Local(Section):
    """Processes on this machine."""

    kind: Literal["local"] = "local"
    workers: ProcessCount | None = Field(
        None, description="processes; one a core by default"
    )


class Inline(Section):
    """This process, one task after the other."""

    kind: Literal["inline"]


class Tls(Section):
    """Files for a connection to a scheduler that uses TLS."""

    ca: str = Field(description="PEM file of the authority")
    cert: str = Field(description="PEM file of the certificate")
    key: str = Field(description="PEM file of the private key")


class Address(Section):
    """A Dask scheduler that is already running."""

    kind: Literal["address"]
    address: str = Field(description="such as tcp://10.0.0.1:8786")
    tls: Tls | None = Field(None, description="ca, cert and key, where it speaks TLS")
    separate: bool = Field(
        False, description="workers carry the resources LABEL=1 or LEARN=1"
    )


class Jobs(Section):
    """The number of jobs of a batch system."""

    least: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="kept even without work"
    )
    most: ParallelCount = Field(1, description="at most")


class Workers(Section):
    """Jobs of one kind, each with worker processes for one task at a time."""

    cores: ProcessCount = Field(1, description="of a job")
    memory: Memory = Field(description="of a job, such as 64 GB; plain number: MB")
    tasks: ProcessCount | None = Field(None, description="side by side in a job")
    gpus: Whole = Field(0, description="of a job")
    jobs: Jobs = Jobs()


class _Batch(Section):
    queue: Word | None = Field(None, description="Slurm's partition, PBS's queue")
    account: Word | None = Field(None, description="who pays")
    walltime: Duration = Field(description="of a job, such as 4 h; plain number: s")
    labels: Workers = Field(description="jobs that label, and do all else too, if ...")
    learning: Workers | None = Field(None, description="... there are none for it")
    interface: Word | None = Field(None, description="of the network, such as ib0")
    tls: bool = Field(True, description="encrypted, with credentials of this run")
    idle: Duration = Field(300.0, description="until an idle job is given back")
    directives: Lines = Field((), description="more options of the job script")
    prologue: Lines = Field((), description="shell lines before a worker starts")


class Slurm(_Batch):
    """Jobs of Slurm."""

    kind: Literal["slurm"]


class Pbs(_Batch):
    """Jobs of PBS."""

    kind: Literal["pbs"]


Cluster: TypeAlias = Annotated[
    Annotated[Local, union_tag("local")]
    | Annotated[Inline, union_tag("inline")]
    | Annotated[Address, union_tag("address")]
    | Annotated[Slurm, union_tag("slurm")]
    | Annotated[Pbs, union_tag("pbs")],
    by_kind("local"),
]
