"""The rule by which a local cluster's processes follow the tasks.

Apart from `alloop.workers.connection`, which imports distributed only when it connects.
"""

from distributed.deploy.adaptive import Adaptive

IDLE_CHECKS = 60  # a second apart: how long a process is kept without work
_OPEN = ("queued", "processing", "waiting")  # not `no-worker`: the placeholder's state


class TaskCount(Adaptive):  # type: ignore[misc]
    """Dask's adaptive scaling with a process for each task that waits or runs.

    Dask's own target takes half a second for a task that it has not seen yet, and one
    mean for labels and trainings together, so that long labels would wait on one
    worker. Which processes end is Dask's choice: idle ones, whose data go first.
    """

    async def target(self) -> int:
        """Return the number of open tasks."""
        tasks = self.cluster.scheduler.tasks.values()
        return sum(task.state in _OPEN for task in tasks)
