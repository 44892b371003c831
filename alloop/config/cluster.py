"""Conversion of the `cluster:` section to the plan of a cluster."""

from typing import TYPE_CHECKING

from alloop.config.sections.clusters import Address, BatchSystem, Inline, Local, Workers
from alloop.config.sections.plan import Plan

if TYPE_CHECKING:
    from alloop.workers.cluster_plan import BatchPlan, ClusterPlan, JobGroup


def cluster_plan(plan: Plan) -> "ClusterPlan":
    """Return the plan of the processes, scheduler or batch jobs that run the work."""
    from alloop.workers.cluster_plan import LABEL, LEARN, ClusterPlan, TlsFiles

    match plan.cluster:
        case Local(workers=workers, gpus=gpus):
            return ClusterPlan("local", workers, gpus=gpus)
        case Inline():
            return ClusterPlan("inline")
        case Address(address=address, tls=tls, separate=apart, resources=asked):
            files = None if tls is None else TlsFiles(tls.ca, tls.cert, tls.key)
            return ClusterPlan(
                "address",
                address=address,
                tls=files,
                apart=apart,
                asked={LABEL: asked.labels, LEARN: asked.learning},
            )
        case BatchSystem() as jobs:
            return ClusterPlan(jobs.kind, batch=_batch_plan(jobs))


def _batch_plan(jobs: BatchSystem) -> "BatchPlan":
    """Return the plan of batch jobs.

    A label takes one core, so that many run side by side; a training takes all.
    """
    from alloop.workers.cluster_plan import LABEL, LEARN, BatchPlan

    groups = {LABEL: _job_group(jobs.labels, jobs.labels.cores)}
    if jobs.learning is not None:
        groups[LEARN] = _job_group(jobs.learning, 1)
    shared = set(BatchSystem.model_fields) - {"kind", "labels", "learning"}
    return BatchPlan(
        system=jobs.kind,
        groups=groups,
        site_names=jobs.model_dump(exclude=set(BatchSystem.model_fields)),
        **jobs.model_dump(include=shared),
    )


def _job_group(workers: Workers, tasks: int) -> "JobGroup":
    from alloop.workers.cluster_plan import JobGroup

    return JobGroup(
        cores=workers.cores,
        memory=workers.memory,
        tasks=workers.tasks or tasks,
        gpus=workers.gpus,
        least=workers.jobs.least,
        most=workers.jobs.most,
    )
