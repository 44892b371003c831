"""ASTEROID's losses (Bukharin et al., ICML 2023, Eqs. 1 and 2), pure functions.

Errors are divided by `scale`, the root mean square of the label's force components in
eV/Å (energies by scale x 1 Å), so that ρ and the learning rate mean the same for every
molecule.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from alloop.models.graph import Graph
from alloop.models.network import Network, energy_and_forces

Drawn: TypeAlias = tuple[Tensor, ...]  # the random numbers of one step


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What a batch should give, in units of the scale.

    energies (frames,) less the references, forces (atoms, 3), weights (frames,) of
    mean 1, owner (atoms,) the frame of each atom.
    """

    energies: Tensor
    forces: Tensor
    weights: Tensor
    owner: Tensor


class Objective(Hashable, Protocol):
    """What a step makes small: a pure function of its arguments.

    It must be hashable, and its repr must tell it from every other, as a frozen
    dataclass of numbers does: compiled programs and checkpoints go by it. It may use
    nothing random but what `draw` gave.
    """

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:
        """The random numbers that a step on this graph needs, of fixed shapes."""

    def __call__(
        self, network: Network, graph: Graph, target: Targets, drawn: Drawn
    ) -> Tensor:
        """The loss, a scalar that can be differentiated by the network's weights."""


@dataclass(frozen=True, slots=True)
class LabelLoss:
    """The labelled loss: ρ is energy, norm that of `force_errors`."""

    energy: float
    norm: str = "l2"

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:  # noqa: ARG002
        """Nothing: labels leave nothing to chance."""
        return ()

    def __call__(
        self,
        network: Network,
        graph: Graph,
        target: Targets,
        drawn: Drawn,  # noqa: ARG002
    ) -> Tensor:
        """(1 - ρ) ℓ_f + ρ ℓ_e of what the network says."""
        said = energy_and_forces(network, graph, create_graph=True)
        return total_loss(said.energies, said.forces, target, self.energy, self.norm)


def force_errors(predicted: Tensor, target: Tensor, norm: str = "l2") -> Tensor:
    """An atom's error (atoms,): its length ("l2") or its components' mean ("l1")."""
    difference = predicted - target  # (atoms, 3)
    if norm == "l1":
        return difference.abs().mean(dim=1)
    length: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return length


def force_loss(predicted: Tensor, target: Targets, norm: str = "l2") -> Tensor:
    """Mean over atoms of w ℓ_f, in units of the scale."""
    errors = force_errors(predicted, target.forces, norm)
    return (target.weights[target.owner] * errors).mean()


def energy_loss(predicted: Tensor, target: Targets) -> Tensor:
    """Mean over frames of w abs(E - E_label), in units of the scale."""
    return (target.weights * (predicted - target.energies).abs()).mean()


def total_loss(
    energies: Tensor, forces: Tensor, target: Targets, rho: float, norm: str = "l2"
) -> Tensor:
    """(1 - ρ) ℓ_f + ρ ℓ_e; Eq. 1 with unit weights, Eq. 2 with bias weights."""
    force = force_loss(forces, target, norm)
    return (1.0 - rho) * force + rho * energy_loss(energies, target)
