"""A cluster that campaigns in a row share, so that workers and jobs start once."""

from dataclasses import dataclass, replace

from alloop.workers.cluster_plan import ClusterPlan
from alloop.workers.connection import Connection, connect_cluster


@dataclass(slots=True)
class SharedCluster:
    """The workers that a campaign left idle, for the next one with the same `cluster:`.

    Only one pool uses them at a time. Workers that were left with tasks are not kept.
    """

    _plan: ClusterPlan | None = None
    _idle: Connection | None = None

    def take(self, plan: ClusterPlan) -> Connection:
        """Return the idle workers if they are of this plan and alive, else new ones."""
        connection, self._idle = self._idle, None
        if connection is not None:
            if self._plan == _placeless(plan) and connection.is_alive:
                return connection
            connection.close()
        return connect_cluster(plan)

    def give_back(self, plan: ClusterPlan, connection: Connection) -> None:
        """Keep the workers of this plan, which have no task."""
        self.close()
        self._plan, self._idle = _placeless(plan), connection

    def close(self) -> None:
        """End the idle workers."""
        connection, self._idle = self._idle, None
        if connection is not None:
            connection.close()


def _placeless(plan: ClusterPlan) -> ClusterPlan:
    """Return the plan without the folder of its campaign."""
    return replace(plan, folder=ClusterPlan().folder)
