"""A stage: the state that changes from step to step, and the task that does not.

A state is saved and loaded as one, under the identity of its task.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alloop.core.seeds import torch_seed
from alloop.core.settings import identity
from alloop.core.units import Floats, Integers
from alloop.models.checkpoint import Checkpoint, content_id
from alloop.models.graph import Graph
from alloop.models.network import Network, energy_and_forces
from alloop.training.graph_pool import BatchOrder, GraphPool
from alloop.training.losses import (
    CellLoss,
    Drawn,
    EnergyLoss,
    LabelLoss,
    LossGradient,
    Objective,
    Targets,
)
from alloop.training.optimisers import clip_gradients, free_weights, make_optimisers
from alloop.training.stages import Schedule, Stage, averaging_decay, learning_rate

PLAIN = "plain"
STATE_KIND = "training"  # of the checkpoint
_EDGES = 20_000  # at once when errors are computed: some tens of MB
_RECORDS = ("steps", "losses", "errors", "recent")
_POSITION = ("step", "planned", "compile", "engine", "cpu_seconds", "parts")


@dataclass(slots=True, eq=False)
class StageState:
    """The weights, their average, the optimisers, the position and the records.

    network: the one that is trained, a copy of the one given; average: the network of
    averaged weights. step, planned: steps taken and in all; compile: whether steps are
    to be compiled, engine: how they were computed, parts: how many a batch is divided
    into, since a whole one exceeds the memory. steps, losses, errors: when records
    were made, the mean loss since the one before, and the force error in eV/Å on
    validation frames; recent: losses since the last record; best: the weights with the
    least error.
    """

    network: Network
    schedule: Schedule
    step: int = 0
    planned: int = 0
    compile: bool = False
    engine: str = PLAIN
    cpu_seconds: float = 0.0
    parts: int = 1
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    average: Network = field(init=False)
    optimisers: tuple[torch.optim.Optimizer, ...] = field(init=False)
    weights: dict[str, Tensor] = field(init=False)
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.weights = free_weights(self.network)
        self.averages = list(free_weights(self.average).values())
        self.optimisers = make_optimisers(self.network, self.schedule)

    def is_finished(self) -> bool:
        """Return True if all steps are taken, or the patience is exhausted."""
        return self.step >= self.planned or not self._is_improving

    @property
    def _is_improving(self) -> bool:
        patience = self.schedule.patience
        if patience is None or not self.errors:
            return True
        lowest = self.steps[self.errors.index(min(self.errors))]
        return self.steps[-1] - lowest < patience

    def descend(self, gradient: LossGradient, index: int, steps: int) -> None:
        """Move the weights by step number `index` of `steps` down this gradient."""
        rate = learning_rate(index, steps, self.schedule)
        gradients = clip_gradients(gradient.gradients, self.schedule.clip)
        for weight, weight_gradient in zip(
            self.weights.values(), gradients, strict=True
        ):
            weight.grad = weight_gradient
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.step()
        self._average(averaging_decay(index, self.schedule.ema))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        weights = list(self.weights.values())
        torch._foreach_lerp_(self.averages, weights, 1.0 - decay)

    def add_loss(self, loss: float, validation: GraphPool | None) -> bool:
        """Count a step and its loss; return True if a record was made."""
        self.step += 1
        self.recent.append(loss)
        if self.step != self.planned and self.step % self.schedule.every:
            return False
        self.steps.append(self.step)
        self.losses.append(math.fsum(self.recent) / len(self.recent))
        self.recent = []
        if validation is not None:
            error = label_error(self.average, validation)
            if not self.errors or error < min(self.errors):
                self.best = copy.deepcopy(self.average.state_dict())
            self.errors.append(error)
        return True

    def result(self) -> Network:
        """Return the averaged network, or the best average where there is a patience.

        Its weights replace those of `average`.
        """
        if self.schedule.patience is not None and self.best is not None:
            self.average.load_state_dict(self.best)
        return self.average

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, averages and optimisers, which the next step changes."""
        out: dict[str, Tensor] = {}
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            out |= {f"weight/{name}": weight, f"average/{name}": mean}
            state = self._optimiser_state(weight)
            out |= {f"state/{name}/{key}": tensor for key, tensor in state.items()}
        return out

    def save(self) -> Checkpoint:
        """Return all that the rest of the stage depends on."""
        best = {f"best/{name}": tensor for name, tensor in (self.best or {}).items()}
        facts = {
            "watch": {name: list(getattr(self, name)) for name in _RECORDS},
            "progressed": {name: getattr(self, name) for name in _POSITION},
        }
        return Checkpoint(STATE_KIND, facts, copied_arrays({**self.tensors(), **best}))

    @torch.no_grad()
    def load(self, saved: Checkpoint) -> None:
        """Take over the saved state of the same stage."""
        for name in _RECORDS:
            setattr(self, name, list(saved.settings["watch"][name]))
        for name in _POSITION:  # older states have no parts
            value = saved.settings["progressed"].get(name, getattr(self, name))
            setattr(self, name, value)
        tensors = {n: torch.from_numpy(np.array(a)) for n, a in saved.tensors.items()}
        self.best = _under_prefix(tensors, "best/") or None
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            weight.copy_(tensors[f"weight/{name}"])
            mean.copy_(tensors[f"average/{name}"])
            state = _under_prefix(tensors, f"state/{name}/")
            self._optimiser_state(weight).update(_beside(state, weight))

    def _optimiser_state(self, weight: Tensor) -> dict[str, Tensor]:
        for optimiser in self.optimisers:
            groups = optimiser.param_groups
            if any(
                weight is parameter for group in groups for parameter in group["params"]
            ):
                state: dict[str, Tensor] = optimiser.state[weight]
                return state
        raise KeyError("expected a weight of this network")


def label_error(network: Network, pool: GraphPool) -> float:
    """Return the mean absolute error of the force components over a pool, eV/Å.

    Where no label has forces it is that of the energies less their mean error, in eV.
    """
    if not pool.labels.has_forces:
        return _energy_error(network, pool)
    total, count = 0.0, 0
    for frames in pool.edge_chunks(_EDGES):
        graph, target = pool.select(frames)
        error = energy_and_forces(network, graph).forces - target.forces
        if target.labelled is not None:
            error = error[target.labelled > 0]
        total += float(error.abs().double().sum())
        count += error.numel()
    return total / count * pool.scale


@torch.no_grad()
def _energy_error(network: Network, pool: GraphPool) -> float:
    errors = []
    for frames in pool.edge_chunks(_EDGES):
        graph, target = pool.select(frames)
        errors.append(network(graph)[0].double() - target.energies.double())
    off = torch.cat(errors)
    return float((off - off.mean()).abs().mean()) * pool.scale


def copied_arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return copies, which later steps do not change."""
    copies: dict[str, Floats] = {
        name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()
    }
    return copies


def _beside(state: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Return an optimiser's tensors on the weight's device, numbers of steps here.

    That is where torch's optimisers keep them.
    """
    return {k: v if k == "step" else v.to(weight.device) for k, v in state.items()}


def _under_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


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
        if not self.pool.labels.has_forces:
            return EnergyLoss()
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
        graph, target = self.pool.select(self._frames_at(step))
        generator = torch.Generator()
        generator.manual_seed(torch_seed(self.seed, f"{self.stage.name}/drawn/{step}"))
        return graph, target, self.loss.draw(graph, generator)

    def parts_at(self, step: int, parts: int) -> Iterator[tuple[Graph, Targets, Drawn]]:
        """Yield the batch of a step in parts, whose losses add up to that of the whole.

        parts: their number, at most that of the frames.
        """
        graph, target, drawn = self.batch_at(step)
        if parts == 1:
            yield graph, target, drawn
            return
        frames, counts, owner = self._frames_at(step), target.count(), graph.batch
        for rows in np.array_split(np.arange(len(frames)), parts):
            atoms = (owner >= int(rows[0])) & (owner <= int(rows[-1]))
            part, part_target = self.pool.select(frames[rows])
            # What is drawn is a weight of the whole step, or (..., atoms, 3).
            of_part = (x if x.ndim == 0 else x[..., atoms, :] for x in drawn)
            yield part, replace(part_target, counts=counts), tuple(of_part)

    def _frames_at(self, step: int) -> Integers:
        name, frames = f"{self.stage.name}/batches", len(self.pool)
        return BatchOrder(self.seed, name, frames, self.schedule.batch).at(step)

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
