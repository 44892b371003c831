"""A loss and its gradient by every weight, for any objective."""

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
    """A function that gives loss and gradients of a network on one batch.

    drawn: the random numbers of the step.
    """

    def __call__(self, graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        """Return loss and gradient at the network's weights, which do not change."""


def free_weights(network: Network) -> list[Tensor]:
    """Return the trainable parameters, in the network's order."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def loss_gradient(loss: Tensor, weights: Sequence[Tensor]) -> LossGradient:
    """Return a loss and its gradient: zeros for weights it does not depend on."""
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return LossGradient(loss.detach(), gradients)


def eager_gradients(network: Network, objective: Objective) -> GradientFunction:
    """Return a gradient function that runs torch without compilation."""
    weights = free_weights(network)

    def slopes(graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        return loss_gradient(objective(network, graph, target, drawn), weights)

    return slopes
