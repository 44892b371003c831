"""The `cluster:` section: one block of YAML for each kind of cluster.

The sections of batch systems are made from the records in
`alloop.workers.batch_systems`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union

from pydantic import (
    Field,
    create_model,
    model_validator,
)

from alloop.config.sections.base import (
    Duration,
    Line,
    Loose,
    Memory,
    ParallelCount,
    Positive,
    Section,
    Whole,
    Word,
    by_kind,
    union_tag,
)
from alloop.workers.batch_systems import BATCH_SYSTEMS, WorkloadManager

ProcessCount: TypeAlias = Annotated[int, Field(ge=1, le=4096)]  # of one machine
Lines: TypeAlias = Annotated[tuple[Line, ...], Loose]
_create_section: Callable[..., type["BatchSystem"]] = create_model


class _Range(Section):
    """Limits of a number."""

    minimum: int
    maximum: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(
                f"expected `minimum` up to `maximum`, got {self.minimum} and "
                f"{self.maximum}"
            )
        return self


class Adaptive(_Range):
    """The number of processes, which follows the number of tasks."""

    minimum: ProcessCount = Field(1, description="processes that are kept without work")
    maximum: ProcessCount = Field(description="most processes at a time")


class AdaptiveJobs(_Range):
    """The number of jobs of a batch system, which follows the number of tasks."""

    minimum: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="jobs that are kept even without work"
    )
    maximum: ParallelCount = Field(1, description="most jobs at a time")


class Local(Section):
    """Processes on this machine."""

    kind: Literal["local"] = "local"
    workers: ProcessCount | None = Field(
        None, description="number of worker processes; by default one for each core"
    )
    gpus: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="cards that have a worker each for training and MD, with `device: "
        "cuda`; the other workers make labels. 0: all workers do everything",
    )
    adaptive: Adaptive | None = Field(
        None,
        description="a number of processes that follows the tasks, in place of "
        "`workers`; none by default",
    )

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        for key in ("workers", "gpus"):
            if self.adaptive is not None and getattr(self, key):
                raise ValueError(
                    f"expected `{key}` or `adaptive`, got both; leave one out"
                )
        return self


class Inline(Section):
    """This process, one task after the other."""

    kind: Literal["inline"]


class Tls(Section):
    """Files for a connection to a scheduler that uses TLS."""

    ca: str = Field(description="path of the PEM file of the certificate authority")
    cert: str = Field(description="path of the PEM file of the certificate")
    key: str = Field(description="path of the PEM file of the private key")


class Resources(Section):
    """Resources of Dask that a task needs on its worker."""

    labels: dict[Word, Positive] = Field({}, description="of labels, such as {CPU: 1}")
    learning: dict[Word, Positive] = Field(
        {}, description="of training and MD, such as {GPU: 1}"
    )


class Address(Section):
    """A Dask scheduler that is already running."""

    kind: Literal["address"]
    address: str = Field(
        description="address of the scheduler, such as tcp://10.0.0.1:8786"
    )
    tls: Tls | None = Field(
        None, description="credentials, needed if the scheduler uses TLS"
    )
    separate: bool = Field(
        False,
        description="whether training and MD go to workers with the resource "
        "LEARN=1, and the rest to those with LABEL=1",
    )
    resources: Resources = Resources()


class Workers(Section):
    """Jobs of one kind, each with worker processes for one task at a time."""

    cores: ProcessCount = Field(1, description="CPU cores of a job")
    memory: Memory = Field(
        description="memory of a job, such as 64 GB (a plain number is in MB)"
    )
    tasks: ProcessCount | None = Field(
        None,
        description="tasks side by side in a job; by default one for each core for "
        "labels, one for learning",
    )
    gpus: Whole = Field(0, description="GPUs of a job")
    adaptive: AdaptiveJobs = AdaptiveJobs()


class BatchSystem(Section):
    """Jobs of a batch system, which run what the campaign file names."""

    kind: str
    queue: Word | None = Field(
        None,
        description="queue of the jobs (Slurm: partition); by default the system's",
    )
    account: Word | None = Field(
        None,
        description="account that the jobs are charged to (LSF, SGE: project); by "
        "default the user's",
    )
    walltime: Duration = Field(
        description="wall time of a job, such as 4 h (a plain number is in s)"
    )
    labels: Workers = Field(
        description="jobs that make labels, such as {cores: 4, memory: 16 GB}; without "
        "`learning` they do everything"
    )
    learning: Workers | None = Field(
        None,
        description="jobs for training and MD; by default the label jobs do these too",
    )
    interface: Word | None = Field(
        None,
        description="network interface for scheduler and workers, such as ib0; by "
        "default chosen by Dask",
    )
    tls: bool = Field(
        True,
        description="whether connections are encrypted, with credentials made for "
        "each run",
    )
    idle: Duration = Field(
        300.0,
        description="time without work after which a job ends, such as 5 min (a "
        "plain number is in s)",
    )
    directives: Lines = Field(
        (),
        description="further options of the batch system for the job script, such as "
        "--constraint=avx2",
    )
    prologue: Lines = Field(
        (), description="shell lines of the job script before the worker starts"
    )


def _batch_section(system: WorkloadManager) -> type[BatchSystem]:
    """Return the section of a batch system: its kind, and words that sites choose."""
    keys: dict[str, Any] = {"kind": (Literal[system.kind], ...)}
    for key, name in system.site_names.items():
        keys[key] = (Word, Field(name.usual, description=name.meaning))
    return _create_section(
        system.kind.capitalize(),
        __base__=BatchSystem,
        __doc__=f"Jobs of {system.title}.",
        __module__=__name__,
        **keys,
    )


BATCH_SECTIONS = {kind: _batch_section(BATCH_SYSTEMS[kind]) for kind in BATCH_SYSTEMS}
# Where pickle looks for them, as a plan travels to workers.
globals().update({own.__name__: own for own in BATCH_SECTIONS.values()})

if TYPE_CHECKING:
    Cluster: TypeAlias = Local | Inline | Address | BatchSystem
else:
    _TAGGED = tuple(
        Annotated[section, union_tag(kind)]
        for kind, section in {
            "local": Local,
            "inline": Inline,
            "address": Address,
            **BATCH_SECTIONS,
        }.items()
    )
    Cluster = Annotated[Union[_TAGGED], by_kind("local")]  # noqa: UP007
