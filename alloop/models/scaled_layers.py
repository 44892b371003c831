"""Layers that keep a feature's variance near 1 without biases or norms (GemNet)."""

import math

import torch
from torch import Tensor, nn

HALF = math.sqrt(0.5)  # a sum of two keeps the variance of each


def scaled_linear(inside: int, outside: int) -> nn.Linear:
    """Return a layer x W, W orthogonal, then of mean 0 and variance 1/inside."""
    layer = nn.Linear(inside, outside, bias=False)
    with torch.no_grad():
        W = nn.init.orthogonal_(layer.weight)
        variance, mean = torch.var_mean(W, dim=1, correction=0, keepdim=True)
        W.sub_(mean).div_(torch.sqrt(inside * (variance + 1e-6)))
    return layer


class Swish(nn.Module):
    """The activation SiLU(x)/0.6, which keeps the variance of a normal x."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) * (1.0 / 0.6)


def activated_linear(inside: int, outside: int) -> nn.Sequential:
    """Return a `scaled_linear` layer followed by `Swish`."""
    return nn.Sequential(scaled_linear(inside, outside), Swish())


class Residual(nn.Module):
    """The residual block (x + σ(σ(x W) W')) / √2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            activated_linear(width, width), activated_linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.inner(x)) * HALF
        return out
