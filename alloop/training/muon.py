"""Muon: steps along the nearest orthogonal matrix to the averaged gradient.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with
steps of AdamW's size (Liu et al., arXiv 2502.16982, Eq. 4). Matrices of one shape are
processed together: one by one, small ones cost more in calls than in arithmetic.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_FIVE = 5  # iterations, after which singular values lie between 0.7 and 1.2
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of X, XXᵀX and (XXᵀ)²X: Jordan's
_SIZE = 0.2  # root mean square of AdamW's steps, in units of its lr
_LEAST = 1e-7


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
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])
        steps = orthogonalised(torch.stack(list(ahead)))
        rate = group["lr"] * _SIZE * math.sqrt(max(steps.shape[1:]))
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
    X = X / (X.norm(dim=(1, 2), keepdim=True) + _LEAST)
    a, b, c = _QUINTIC
    for _ in range(_FIVE):
        A = X @ X.mT
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)
        X = torch.baddbmm(X, B, X, beta=a)
    return X.mT if rows > columns else X


def _group_by_shape(weights: list[Tensor]) -> list[list[Tensor]]:
    """Return the weights grouped by shape."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        shapes.setdefault(weight.shape, []).append(weight)
    return list(shapes.values())


def _weight_gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
