"""How a stage computes its steps, and how many of them fit into its time."""

import copy
import os
import time
from dataclasses import dataclass

import torch

from alloop.core.seeds import torch_seed
from alloop.models.compiling import NotCompiled
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.compiled import compiled_slopes
from alloop.training.losses import Drawn, Objective, Targets
from alloop.training.pool import Order, Pool
from alloop.training.schedule import bounded, compiles
from alloop.training.slopes import Slopes, eager
from alloop.training.stages import Stage
from alloop.training.walk import Walk

PLAIN = "plain"
_TIMED = 5  # steps


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """The batches of a stage: pure functions of its seed, its name and the step."""

    pool: Pool
    stage: Stage
    seed: int
    objective: Objective

    def at(self, step: int) -> tuple[Graph, Targets, Drawn]:
        """What a step learns from: a graph, its targets, and random numbers."""
        graph, target = self.pool.take(self._order.at(step))
        generator = torch.Generator()
        generator.manual_seed(torch_seed(self.seed, f"{self.stage.name}/drawn/{step}"))
        return graph, target, self.objective.draw(graph, generator)

    @property
    def mixed(self) -> bool:
        """Whether batches may differ in more than positions, labels and states."""
        return not self.pool.alike and len(self.pool) > self.stage.schedule.batch

    @property
    def _order(self) -> Order:
        name = f"{self.stage.name}/batches"
        return Order(self.seed, name, len(self.pool), self.stage.schedule.batch)


def engine(network: Network, lessons: Lessons, wanted: bool) -> tuple[Slopes, str]:
    """Slopes for a network, compiled where that is wanted and possible, and a word on
    how they are made."""
    plain = eager(network, lessons.objective)
    if not wanted:
        return plain, PLAIN
    try:
        slopes = compiled_slopes(
            network, lessons.objective, lessons.at(0), lessons.mixed
        )
    except NotCompiled as why:
        return plain, f"{PLAIN}, not compiled: {why}"
    return slopes, "compiled"


@dataclass(frozen=True, slots=True, eq=False)
class Planner:
    """Fixes, once, how many steps a stage takes and whether they are compiled.

    ahead: steps of the whole training that the same program serves.
    """

    walk: Walk
    lessons: Lessons
    ahead: int

    def plan(self) -> tuple[int, bool]:
        """Steps and whether to compile. Only a stage with a time budget is timed:
        as it is, and once more where the steps that fit are worth compiling."""
        stage = self.lessons.stage
        most = bounded(stage.steps, len(self.lessons.pool), stage.schedule)
        if stage.schedule.seconds is None:
            return most, self._compiles(most)
        steps = min(most, self._within(stage.schedule.seconds, compiled=False))
        if not self._compiles(steps):
            return steps, False
        return min(most, self._within(stage.schedule.seconds, compiled=True)), True

    def _compiles(self, steps: int) -> bool:
        edges = self.lessons.at(0)[0].edge_index.shape[1]
        schedule = self.lessons.stage.schedule
        return compiles(max(steps, self.ahead), edges, schedule)

    def _within(self, seconds: float, compiled: bool) -> int:
        """Steps in so many CPU seconds, by the time that a few take."""
        slopes, _ = engine(self.walk.network, self.lessons, compiled)
        trial = copy.deepcopy(self.walk)
        began = 0.0
        for index in range(_TIMED + 1):
            trial.step(index, _TIMED + 1, slopes(*self.lessons.at(index)))
            began = began or time.process_time()  # the first one only warms up
        each = (time.process_time() - began) / _TIMED
        return max(1, int(seconds / each))


def cpu_seconds() -> float:
    """CPU time of this process and of the compilers that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
