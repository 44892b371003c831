"""The optimisers: Muon for the matrices that mix features, and AdamW for the rest.

The rest are vectors, embeddings of elements and narrow matrices. Muon takes steps along
the nearest orthogonal matrix to the averaged gradient (Jordan et al., "Muon: an
optimizer for hidden layers in neural networks", 2024), with steps of AdamW's size (Liu
et al., arXiv 2502.16982, Eq. 4). Matrices of one shape are processed together: one by
one, small ones cost more in calls than in arithmetic.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from alloop.models.network import Network
from alloop.training.stages import Schedule

_NARROW = 16  # rows or columns; AdamW updates matrices with fewer
_FIVE = 5  # iterations, after which singular values lie between 0.7 and 1.2
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of X, XXᵀX and (XXᵀ)²X: Jordan's
_WIDE = 2  # columns over rows; factors are cheaper from there on
_SIZE = 0.2  # root mean square of AdamW's steps, in units of its lr
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """The Muon optimiser, for matrices only; groups have `lr` and `weight_decay`."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        momentum: float = 0.98,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step down the gradients of all weights."""
        assert closure is None
        for group in self.param_groups:
            for weights in _group_by_shape(group["params"]):
                self._move(weights, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        means = [self._mean(weight) for weight in weights]
        gradients = [_weight_gradient(weight) for weight in weights]
        torch._foreach_lerp_(means, gradients, 1.0 - group["momentum"])
        # Nesterov's: the step looks ahead along the mean by one more averaging.
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])
        steps = orthogonalised(torch.stack(list(ahead)))
        # Elements of an orthogonal matrix have a root mean square of 1/√(longer side).
        rate = group["lr"] * _SIZE * math.sqrt(max(steps.shape[1:]))
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, list(steps.unbind()), alpha=-rate)

    def _mean(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["mean"] = torch.zeros_like(weight)
        mean: Tensor = state["mean"]
        return mean


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return the matrices (count, rows, columns) with singular values of about one.

    Newton-Schulz iterations of fifth order; singular values below about 1e-3 of the
    norm stay small.
    """
    rows, columns = matrices.shape[1:]
    X = matrices.mT if rows > columns else matrices
    # With this norm no singular value is above 1; from larger ones iterations diverge.
    X = X / (X.norm(dim=(1, 2), keepdim=True) + _EPSILON)
    wide = X.shape[2] >= _WIDE * X.shape[1]
    X = _iterated_by_factors(X) if wide else _iterated(X)
    return X.mT if rows > columns else X


def _iterated(X: Tensor) -> Tensor:
    for _ in range(_FIVE):
        X = torch.bmm(_factor(torch.bmm(X, X.mT)), X)
    return X


def _iterated_by_factors(X: Tensor) -> Tensor:
    """Return what `_iterated` does; the long side of X is read twice only.

    A factor is a polynomial of XXᵀ, with which it commutes, so that the next XXᵀ
    follows from the last one.
    """
    A = torch.bmm(X, X.mT)
    factor = product = _factor(A)
    for _ in range(_FIVE - 1):
        A = torch.bmm(torch.bmm(factor, A), factor)
        factor = _factor(A)
        product = torch.bmm(factor, product)
    return torch.bmm(product, X)


def _factor(A: Tensor) -> Tensor:
    """Return a + bA + cA², by which an iteration multiplies X, for A = XXᵀ."""
    a, b, c = _QUINTIC
    out = torch.baddbmm(A, A, A, beta=b, alpha=c)
    out.diagonal(dim1=1, dim2=2).add_(a)
    return out


def _group_by_shape(weights: list[Tensor]) -> list[list[Tensor]]:
    """Return the weights grouped by shape."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        shapes.setdefault(weight.shape, []).append(weight)
    return list(shapes.values())


def _weight_gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def clip_gradients(gradients: tuple[Tensor, ...], limit: float) -> tuple[Tensor, ...]:
    """Return the gradients, scaled down together where their norm is above `limit`."""
    factor = (limit / (get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
    return torch._foreach_mul(gradients, factor)


def make_optimisers(
    network: Network, schedule: Schedule
) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the matrices that mix features, and AdamW for the rest."""
    mixing = [] if schedule.optimiser == "adamw" else mixing_matrices(network)
    rest = [name for name in free_weights(network) if name not in mixing]
    optimisers: list[torch.optim.Optimizer] = []
    if mixing:
        optimisers.append(Muon(parameter_groups(network, schedule, mixing)))
    if rest:
        groups = parameter_groups(network, schedule, rest)
        optimisers.append(torch.optim.AdamW(groups, fused=True))
    return tuple(optimisers)


def mixing_matrices(network: Network) -> list[str]:
    """Return the names of the weights that mix features with features, for Muon."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    return [
        name
        for name, weight in free_weights(network).items()
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
    for name, weight in free_weights(network).items():
        if name not in names:
            continue
        factor = schedule.layer_decay ** (top - depths[name])
        # Biases and scales are not drawn to 0, which is no better a value for them.
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


def free_weights(network: Network) -> dict[str, Tensor]:
    """Return the trainable parameters by name, in the network's order."""
    return {n: w for n, w in network.named_parameters() if w.requires_grad}
