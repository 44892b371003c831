"""A stage as it is given: all that is constant while it runs."""

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.core.seeds import torch_seed
from alloop.core.settings import identity
from alloop.models.checkpoint import Checkpoint, content_id
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.graph_pool import BatchOrder, GraphPool
from alloop.training.losses import CellLoss, Drawn, LabelLoss, Objective, Targets
from alloop.training.schedule import Schedule
from alloop.training.stage_state import STATE_KIND, copied_arrays
from alloop.training.stages import Stage


@dataclass(frozen=True, slots=True, eq=False)
class StageTask:
    """One stage: its network, its labels, and all that decides its outcome.

    network: the one to start from, which is not changed. pool: the labelled frames.
    validation: frames to compute errors on. objective: the loss to minimise, by default
    the schedule's loss on labels. ahead: steps of the whole training that the same
    compiled program serves, this stage's own where it is 0.
    """

    network: Network
    pool: GraphPool
    stage: Stage
    seed: int
    validation: GraphPool | None = None
    objective: Objective | None = None
    ahead: int = 0

    @property
    def loss(self) -> Objective:
        """The loss to minimise."""
        if self.objective is not None:
            return self.objective
        schedule = self.schedule
        if self.pool.target.virial is None or not schedule.stress:
            return LabelLoss(schedule.energy, schedule.norm)
        return CellLoss(schedule.energy, schedule.norm, schedule.stress)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the stage."""
        return self.stage.schedule

    @property
    def has_mixed_batches(self) -> bool:
        """True if batches may differ beyond positions, labels and states."""
        return not self.pool.alike and len(self.pool) > self.schedule.batch

    def batch_at(self, step: int) -> tuple[Graph, Targets, Drawn]:
        """Return the batch of a step: a graph, its targets, and random numbers.

        It is a pure function of the seed, the stage's name and the step.
        """
        name, frames = f"{self.stage.name}/batches", len(self.pool)
        order = BatchOrder(self.seed, name, frames, self.schedule.batch)
        graph, target = self.pool.select(order.at(step))
        generator = torch.Generator()
        generator.manual_seed(torch_seed(self.seed, f"{self.stage.name}/drawn/{step}"))
        return graph, target, self.loss.draw(graph, generator)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of all that decides the outcome of the stage."""
        network = Checkpoint(
            self.network.kind,
            self.network.settings,
            copied_arrays(self.network.state_dict()),
        )
        facts = identity((self.stage, self.seed, self.loss, self.ahead))
        settings = json.dumps(facts, sort_keys=True)
        parts = [STATE_KIND, torch.__version__, content_id(network), settings]
        digest = hashlib.sha256("\n".join(parts).encode())
        for pool in (self.pool, self.validation):
            digest.update(b"none" if pool is None else _pool_content(pool).encode())
        return digest.hexdigest()[:32]


def _pool_content(pool: GraphPool) -> str:
    graph, target = pool.graph, pool.target
    named = {key: value for key, value in graph.to_dict().items() if key != "batch"}
    tensors = {name: t for name, t in named.items() if isinstance(t, Tensor)} | {
        "energies": target.energies,
        "forces": target.forces,
        "weights": target.weights,
        "owner": target.owner,
    }
    if target.virial is not None:
        tensors["virial"] = target.virial
    facts = {"scale": pool.scale}
    return content_id(Checkpoint(STATE_KIND, facts, copied_arrays(tensors)))
