"""A loss and its gradient by every weight, one way for all objectives."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.losses import Drawn, Objective, Targets


class LossGradient(NamedTuple):
    """The loss, a scalar, and its gradient by each of the network's free weights."""

    loss: Tensor
    gradients: tuple[Tensor, ...]


class GradientFunction(Protocol):
    """Loss and gradients of a network on one batch, with the numbers drawn for it."""

    def __call__(self, graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        """The slope at the network's present weights, which stay as they are."""


def free_weights(network: Network) -> list[Tensor]:
    """The parameters that may move, in the network's order."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def loss_gradient(loss: Tensor, weights: Sequence[Tensor]) -> LossGradient:
    """The gradient of a loss; zeros where it does not depend on a weight."""
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return LossGradient(loss.detach(), gradients)


def eager_gradients(network: Network, objective: Objective) -> GradientFunction:
    """Slopes by torch as it is, one operation after the other."""
    weights = free_weights(network)

    def slopes(graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        return loss_gradient(objective(network, graph, target, drawn), weights)

    return slopes
