"""The computation of a stage's steps, and the number of them that fit into its time."""

import copy
import os
import time
from dataclasses import dataclass

import torch

from alloop.core.seeds import torch_seed
from alloop.models.compilation import NotCompiled
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.compiled_gradients import compile_gradients
from alloop.training.gradients import GradientFunction, eager_gradients
from alloop.training.graph_pool import BatchOrder, GraphPool
from alloop.training.losses import Drawn, Objective, Targets
from alloop.training.optimisation import Optimisation
from alloop.training.schedule import bounded_steps, worth_compiling
from alloop.training.stages import Stage

PLAIN = "plain"
_TIMED = 5  # steps


@dataclass(frozen=True, slots=True, eq=False)
class StageBatches:
    """The batches of a stage: pure functions of its seed, its name and the step."""

    pool: GraphPool
    stage: Stage
    seed: int
    objective: Objective

    def batch_at(self, step: int) -> tuple[Graph, Targets, Drawn]:
        """Return the batch of a step: a graph, its targets, and random numbers."""
        graph, target = self.pool.select(self._order.at(step))
        generator = torch.Generator()
        generator.manual_seed(torch_seed(self.seed, f"{self.stage.name}/drawn/{step}"))
        return graph, target, self.objective.draw(graph, generator)

    @property
    def is_mixed(self) -> bool:
        """Return True if batches may differ beyond positions, labels and states."""
        return not self.pool.alike and len(self.pool) > self.stage.schedule.batch

    @property
    def _order(self) -> BatchOrder:
        name = f"{self.stage.name}/batches"
        return BatchOrder(self.seed, name, len(self.pool), self.stage.schedule.batch)


def gradient_engine(
    network: Network, lessons: StageBatches, wanted: bool
) -> tuple[GradientFunction, str]:
    """Return a gradient function of a network, and a description of it.

    The function is compiled where that is wanted and possible. The description is that
    of `LossCurve.engine`.
    """
    plain = eager_gradients(network, lessons.objective)
    if not wanted:
        return plain, PLAIN
    try:
        slopes = compile_gradients(
            network, lessons.objective, lessons.batch_at(0), lessons.is_mixed
        )
    except NotCompiled as why:
        return plain, f"{PLAIN}, not compiled: {why}"
    return slopes, "compiled"


@dataclass(frozen=True, slots=True, eq=False)
class StepPlanner:
    """The planner of a stage: the number of steps, and whether they are compiled.

    Both are fixed once. ahead: steps of the whole training that the same program
    serves.
    """

    walk: Optimisation
    lessons: StageBatches
    ahead: int

    def plan_steps(self) -> tuple[int, bool]:
        """Return the number of steps and whether to compile them.

        Only a stage with a time budget is timed: uncompiled, and once more compiled
        where the steps that fit are worth compiling.
        """
        stage = self.lessons.stage
        most = bounded_steps(stage.steps, len(self.lessons.pool), stage.schedule)
        if stage.schedule.seconds is None:
            return most, self._compiles(most)
        steps = min(most, self._within(stage.schedule.seconds, compiled=False))
        if not self._compiles(steps):
            return steps, False
        return min(most, self._within(stage.schedule.seconds, compiled=True)), True

    def _compiles(self, steps: int) -> bool:
        edges = self.lessons.batch_at(0)[0].edge_index.shape[1]
        schedule = self.lessons.stage.schedule
        return worth_compiling(max(steps, self.ahead), edges, schedule)

    def _within(self, seconds: float, compiled: bool) -> int:
        """Return the number of steps that fit into `seconds` of CPU time.

        A few steps are timed.
        """
        slopes, _ = gradient_engine(self.walk.network, self.lessons, compiled)
        trial = copy.deepcopy(self.walk)
        began = 0.0
        for index in range(_TIMED + 1):
            trial.step(index, _TIMED + 1, slopes(*self.lessons.batch_at(index)))
            began = began or time.process_time()  # the first one only warms up
        each = (time.process_time() - began) / _TIMED
        return max(1, int(seconds / each))


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children (compilers)."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
