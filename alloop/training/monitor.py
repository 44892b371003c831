"""The losses and errors of a running stage, and the rule that stops it early."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alloop.models.network import Network, energy_and_forces
from alloop.training.graph_pool import GraphPool

_EDGES = 20_000  # at once when errors are computed: some tens of MB


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The losses and errors that a stage recorded.

    steps: when they were recorded. losses: the mean loss since the previous record.
    validation: the mean absolute force error in eV/Å where there are validation frames.
    planned: the number of steps planned. engine: how steps were computed, "compiled" or
    "plain", with the reason where compilation failed. cpu_seconds: of all runs of the
    stage, compilers included.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    planned: int = 0
    engine: str = "plain"
    cpu_seconds: float = field(default=0.0, compare=False)


def force_error(network: Network, pool: GraphPool) -> float:
    """Return the mean absolute error of the force components over a pool, eV/Å."""
    total = 0.0
    for frames in pool.edge_chunks(_EDGES):
        graph, target = pool.select(frames)
        error = energy_and_forces(network, graph).forces - target.forces
        total += float(error.abs().double().sum())
    return total / pool.target.forces.numel() * pool.scale


@dataclass(slots=True)
class TrainingMonitor:
    """The records of a stage so far, and the best weights where errors are computed."""

    every: int
    patience: int | None
    validation: GraphPool | None
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    recent: list[float] = field(default_factory=list)

    def add_step(self, step: int, loss: float, last: bool, network: Network) -> bool:
        """Add the loss of a step; return True if a record was made."""
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
        """Return True if there is no patience or the error fell recently enough."""
        if self.patience is None or not self.errors:
            return True
        lowest = self.steps[self.errors.index(min(self.errors))]
        return self.steps[-1] - lowest < self.patience

    @property
    def to_json(self) -> dict[str, list[Any]]:
        """The records as JSON, without the best weights."""
        return {name: list(getattr(self, name)) for name in _LISTS}

    def restore(self, facts: Mapping[str, Any], best: dict[str, Tensor] | None) -> None:
        """Restore the records and the best weights of another monitor."""
        self.best = best
        for name in _LISTS:
            setattr(self, name, list(facts[name]))


_LISTS = ("steps", "losses", "errors", "recent")
