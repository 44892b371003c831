"""The optimiser: AdamW on clipped gradients, and an average of the weights."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from alloop.models.network import Network
from alloop.training.schedule import Schedule, averaging, learning_rate
from alloop.training.slopes import Slope

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's own names


@dataclass(slots=True)
class Walk:
    """The state of one optimisation: the network, its average and AdamW's moments.

    The network that comes in is left as it is.
    """

    network: Network
    schedule: Schedule
    average: Network = field(init=False)
    adam: torch.optim.AdamW = field(init=False)
    weights: dict[str, Tensor] = field(init=False)
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.weights = _free(self.network)
        self.averages = list(_free(self.average).values())
        groups = parameter_groups(self.network, self.schedule)
        self.adam = torch.optim.AdamW(groups, fused=True)

    def step(self, index: int, steps: int, slope: Slope) -> None:
        """Step number `index` of so many, down this slope."""
        rate = learning_rate(index, steps, self.schedule)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["factor"]
        gradients = clipped(slope.gradients, self.schedule.clip)
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient
        self.adam.step()
        self._remember(averaging(index, self.schedule.ema))

    @torch.no_grad()
    def _remember(self, decay: float) -> None:
        weights = list(self.weights.values())
        torch._foreach_lerp_(self.averages, weights, 1.0 - decay)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The whole state; what is in it moves with the next step."""
        out: dict[str, Tensor] = {}
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            out |= {f"weight/{name}": weight, f"average/{name}": mean}
            moments = self.adam.state[weight]
            out |= {f"{key}/{name}": moments[key] for key in _MOMENTS if moments}
        return out

    @torch.no_grad()
    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the state of another walk of the same network."""
        for (name, weight), mean in zip(
            self.weights.items(), self.averages, strict=True
        ):
            weight.copy_(tensors[f"weight/{name}"])
            mean.copy_(tensors[f"average/{name}"])
            if f"step/{name}" in tensors:
                self.adam.state[weight] = {
                    key: tensors[f"{key}/{name}"].clone() for key in _MOMENTS
                }


def clipped(gradients: tuple[Tensor, ...], most: float) -> tuple[Tensor, ...]:
    """The gradients, made shorter together where their norm is above `most`."""
    factor = (most / (get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
    return torch._foreach_mul(gradients, factor)


def parameter_groups(network: Network, schedule: Schedule) -> list[dict[str, Any]]:
    """AdamW's groups: weights of equal decay and equal factor on the learning rate."""
    depths = dict(_depths(network))
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in _free(network).items():
        factor = schedule.layer_decay ** (top - depths[name])
        decay = schedule.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(weight)
    return [
        {"params": weights, "factor": factor, "weight_decay": decay}
        for (factor, decay), weights in groups.items()
    ]


def _depths(network: Network) -> Iterator[tuple[str, int]]:
    """How far up each weight is: 0 before the layers, then 1, 2, ..., then the rest.

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


def _free(network: Network) -> dict[str, Tensor]:
    return {n: w for n, w in network.named_parameters() if w.requires_grad}
