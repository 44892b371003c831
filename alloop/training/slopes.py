"""A loss and its gradient by every weight, one way for all objectives."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.losses import Drawn, Objective, Targets


class Slope(NamedTuple):
    """The loss, a scalar, and its gradient by each of the network's free weights."""

    loss: Tensor
    gradients: tuple[Tensor, ...]


class Slopes(Protocol):
    """Loss and gradients of a network on one batch, with the numbers drawn for it."""

    def __call__(self, graph: Graph, target: Targets, drawn: Drawn) -> Slope:
        """The slope at the network's present weights, which stay as they are."""


def free_weights(network: Network) -> list[Tensor]:
    """The parameters that may move, in the network's order."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def slope_of(loss: Tensor, weights: Sequence[Tensor]) -> Slope:
    """The gradient of a loss; zeros where it does not depend on a weight."""
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return Slope(loss.detach(), gradients)


def eager(network: Network, objective: Objective) -> Slopes:
    """Slopes by torch as it is, one operation after the other."""
    weights = free_weights(network)

    def slopes(graph: Graph, target: Targets, drawn: Drawn) -> Slope:
        return slope_of(objective(network, graph, target, drawn), weights)

    return slopes
