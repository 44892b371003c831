"""What a stage shows while it runs, and when it has shown enough."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alloop.models.network import Network, energy_and_forces
from alloop.training.graph_pool import GraphPool

_EDGES = 20_000  # at once where errors are taken: some tens of MB


@dataclass(frozen=True, slots=True)
class LossCurve:
    """What a stage recorded: at each of `steps`, the mean loss since the last one and,
    where there are validation frames, the mean absolute force error in eV/Å.

    planned: the steps it was to take. engine: how a step was computed, "compiled" or
    "plain", and why so where it was to be compiled. cpu_seconds: of all runs that it
    took, compilers included.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    planned: int = 0
    engine: str = "plain"
    cpu_seconds: float = field(default=0.0, compare=False)


def force_error(network: Network, pool: GraphPool) -> float:
    """Mean absolute error of the force components over a pool, eV/Å."""
    total = 0.0
    for frames in pool.edge_chunks(_EDGES):
        graph, target = pool.select(frames)
        error = energy_and_forces(network, graph).forces - target.forces
        total += float(error.abs().double().sum())
    return total / pool.target.forces.numel() * pool.scale


@dataclass(slots=True)
class TrainingMonitor:
    """What a stage has shown so far, and the best weights where errors are taken."""

    every: int
    patience: int | None
    validation: GraphPool | None
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    recent: list[float] = field(default_factory=list)

    def add_step(self, step: int, loss: float, last: bool, network: Network) -> bool:
        """Take the loss of a step; True where one was recorded."""
        self.recent.append(loss)
        if not last and step % self.every:
            return False
        self.steps.append(step)
        self.losses.append(math.fsum(self.recent) / len(self.recent))
        self.recent = []
        if self.validation is not None:
            self._judge(force_error(network, self.validation), network)
        return True

    def _judge(self, error: float, network: Network) -> None:
        if not self.errors or error < min(self.errors):
            self.best = copy.deepcopy(network.state_dict())
        self.errors.append(error)

    @property
    def is_improving(self) -> bool:
        """Whether the error fell recently enough to go on."""
        if self.patience is None or not self.errors:
            return True
        lowest = self.steps[self.errors.index(min(self.errors))]
        return self.steps[-1] - lowest < self.patience

    @property
    def to_json(self) -> dict[str, list[Any]]:
        """What was seen, as JSON, less the best weights."""
        return {name: list(getattr(self, name)) for name in _LISTS}

    def restore(self, facts: Mapping[str, Any], best: dict[str, Tensor] | None) -> None:
        """Take up what another watch had seen."""
        self.best = best
        for name in _LISTS:
            setattr(self, name, list(facts[name]))


_LISTS = ("steps", "losses", "errors", "recent")
