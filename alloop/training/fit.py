"""The one optimisation loop: every stage of every training of a network runs here.

Adam with a linear warm-up and a cosine to zero, gradients clipped, weights averaged.
How long it runs is fixed before it starts; no decision looks at a clock.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from alloop.core.units import Integers
from alloop.models.network import Network, energy_and_forces
from alloop.training.losses import total_loss
from alloop.training.pool import Order, Pool
from alloop.training.schedule import Schedule
from alloop.training.stages import Stage

Progress: TypeAlias = Callable[[str, int, int, float], None]  # stage, step, steps, loss


@dataclass(frozen=True, slots=True)
class Course:
    """What a stage recorded: at each of `steps`, the mean loss since the last one and,
    where there are validation frames, the mean absolute force error in eV/Å."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[float, ...]


def learning_rate(step: int, steps: int, schedule: Schedule) -> float:
    """Linear warm-up to the peak, then half a cosine to zero."""
    warm = min((step + 1) / max(schedule.warmup, 1), 1.0)
    return schedule.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def averaging(step: int, decay: float) -> float:
    """The decay of the weights' average; shorter at first, to forget the start."""
    return min(decay, (step + 1) / (step + 10))


def force_error(network: Network, pool: Pool) -> float:
    """Mean absolute error of the force components over a pool, eV/Å."""
    error = energy_and_forces(network, pool.graph).forces - pool.target.forces
    return float(error.abs().mean()) * pool.scale


@dataclass(slots=True)
class Walk:
    """The state of one optimisation: the network, its average and Adam's moments."""

    network: Network
    stage: Stage
    average: Network = field(init=False)
    adam: torch.optim.Adam = field(init=False)
    weights: list[Tensor] = field(init=False)
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.weights = list(self.network.parameters())
        self.averages = list(self.average.parameters())
        self.adam = torch.optim.Adam(self.weights, fused=True)

    def step(self, index: int, pool: Pool, frames: Integers) -> float:
        """One step downhill on these frames; the loss before it."""
        schedule = self.stage.schedule
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(index, self.stage.steps, schedule)
        graph, target = pool.take(frames)
        said = energy_and_forces(self.network, graph, create_graph=True)
        loss = total_loss(
            said.energies, said.forces, target, schedule.energy, schedule.norm
        )
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, schedule.clip)
        self.adam.step()
        self._remember(averaging(index, schedule.ema))
        return _finite(loss.item(), self.stage.name, index)

    @torch.no_grad()
    def _remember(self, decay: float) -> None:
        torch._foreach_lerp_(self.averages, self.weights, 1.0 - decay)


@dataclass(slots=True)
class Watch:
    """What a stage has shown so far, and the best weights where errors are taken."""

    every: int
    patience: int | None
    validation: Pool | None
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    recent: list[float] = field(default_factory=list)

    def note(self, step: int, loss: float, last: bool, network: Network) -> bool:
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
    def patient(self) -> bool:
        """Whether the error fell recently enough to go on."""
        if self.patience is None or not self.errors:
            return True
        lowest = self.steps[self.errors.index(min(self.errors))]
        return self.steps[-1] - lowest < self.patience

    @property
    def course(self) -> Course:
        return Course(tuple(self.steps), tuple(self.losses), tuple(self.errors))


def fit(
    network: Network,
    pool: Pool,
    stage: Stage,
    seed: int,
    validation: Pool | None = None,
    progress: Progress | None = None,
) -> tuple[Network, Course]:
    """Run one stage and return the averaged network and its course.

    The network that comes in is left as it is. Without a patience the last average is
    the result, with one the best. On one thread the same call gives the same bits.
    """
    schedule = stage.schedule
    walk = Walk(network, stage)
    watch = Watch(schedule.every, schedule.patience, validation)
    order = Order(seed, f"{stage.name}/batches", len(pool), schedule.batch)
    for index in range(stage.steps):
        loss = walk.step(index, pool, order.at(index))
        noted = watch.note(index + 1, loss, index + 1 == stage.steps, walk.average)
        if noted and progress is not None:
            progress(stage.name, index + 1, stage.steps, watch.losses[-1])
        if noted and not watch.patient:
            break
    if schedule.patience is not None and watch.best is not None:
        walk.average.load_state_dict(watch.best)
    return walk.average, watch.course


def _finite(loss: float, stage: str, step: int) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"expected a finite loss, got {loss} in stage {stage} at step {step}; "
            "lower the stage's lr or look for labels that cannot be right"
        )
    return loss
