"""The optimisers on clipped gradients, and an average of the weights.

Muon updates the matrices that mix features, AdamW the rest: vectors, embeddings of
elements, narrow matrices.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from alloop.models.network import Network
from alloop.training.gradients import LossGradient
from alloop.training.muon import Muon
from alloop.training.schedule import Schedule, averaging_decay, learning_rate

_NARROW = 16  # rows or columns; AdamW updates matrices with fewer
_STATE = "state"


@dataclass(slots=True)
class Optimisation:
    """The state of one optimisation: the network, its average and the optimisers.

    The network given is not changed.
    """

    network: Network
    schedule: Schedule
    average: Network = field(init=False)
    optimisers: tuple[torch.optim.Optimizer, ...] = field(init=False)
    weights: dict[str, Tensor] = field(init=False)
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.weights = _free_weights(self.network)
        self.averages = list(_free_weights(self.average).values())
        self.optimisers = _make_optimisers(self.network, self.schedule)

    def step(self, index: int, steps: int, slope: LossGradient) -> None:
        """Take step number `index` of `steps` down this gradient."""
        rate = learning_rate(index, steps, self.schedule)
        gradients = clip_gradients(slope.gradients, self.schedule.clip)
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.step()
        self._remember(averaging_decay(index, self.schedule.ema))

    @torch.no_grad()
    def _remember(self, decay: float) -> None:
        weights = list(self.weights.values())
        torch._foreach_lerp_(self.averages, weights, 1.0 - decay)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The whole state as tensors, which the next step changes in place."""
        out: dict[str, Tensor] = {}
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            out |= {f"weight/{name}": weight, f"average/{name}": mean}
            state = self._state(weight)
            out |= {f"{_STATE}/{name}/{key}": tensor for key, tensor in state.items()}
        return out

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state of another optimisation of the same network."""
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            weight.copy_(tensors[f"weight/{name}"])
            mean.copy_(tensors[f"average/{name}"])
            start = f"{_STATE}/{name}/"
            own = [key for key in tensors if key.startswith(start)]
            state = {key.removeprefix(start): tensors[key].clone() for key in own}
            self._state(weight).update(state)

    def _state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the optimiser's state of a weight."""
        for optimiser in self.optimisers:
            groups = optimiser.param_groups
            if any(weight is own for group in groups for own in group["params"]):
                state: dict[str, Tensor] = optimiser.state[weight]
                return state
        raise KeyError("expected a weight of this walk")


def clip_gradients(gradients: tuple[Tensor, ...], most: float) -> tuple[Tensor, ...]:
    """Return the gradients, scaled down together where their norm is above `most`."""
    factor = (most / (get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
    return torch._foreach_mul(gradients, factor)


def _make_optimisers(
    network: Network, schedule: Schedule
) -> tuple[torch.optim.Optimizer, ...]:
    mixing = [] if schedule.optimiser == "adamw" else mixing_matrices(network)
    rest = [name for name in _free_weights(network) if name not in mixing]
    made: list[torch.optim.Optimizer] = []
    if mixing:
        made.append(Muon(parameter_groups(network, schedule, mixing)))
    if rest:
        groups = parameter_groups(network, schedule, rest)
        made.append(torch.optim.AdamW(groups, fused=True))
    return tuple(made)


def mixing_matrices(network: Network) -> list[str]:
    """Return the names of the weights that mix features with features, for Muon."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    return [
        name
        for name, weight in _free_weights(network).items()
        if weight.ndim == 2 and min(weight.shape) >= _NARROW
        if id(weight) not in tables
    ]


def parameter_groups(
    network: Network, schedule: Schedule, names: Collection[str]
) -> list[dict[str, Any]]:
    """Return groups of these weights by weight decay and learning-rate factor."""
    depths = dict(_weight_depths(network))
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in _free_weights(network).items():
        if name not in names:
            continue
        factor = schedule.layer_decay ** (top - depths[name])
        decay = schedule.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(weight)
    return [
        {"params": weights, "factor": factor, "weight_decay": decay}
        for (factor, decay), weights in groups.items()
    ]


def _weight_depths(network: Network) -> Iterator[tuple[str, int]]:
    """Yield the name and the depth of each weight.

    The depth is 0 before the layers, then 1, 2, ..., and one more after the layers.
    Layers are the entries of the network's lists of modules.
    """
    layer = {
        f"{name}.{index}.": index + 1
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList)
        for index in range(len(module))
    }
    top = 1 + max(layer.values(), default=0)
    passed = False
    for name, _ in network.named_parameters():
        inside = [depth for prefix, depth in layer.items() if name.startswith(prefix)]
        passed = passed or bool(inside)
        yield name, max(inside, default=top if passed else 0)


def _free_weights(network: Network) -> dict[str, Tensor]:
    return {n: w for n, w in network.named_parameters() if w.requires_grad}
