"""Learning forces from frames without labels: sliced score matching.

Frames of an equilibrium at temperature T are distributed as p ∝ exp(-E/kT), whose score
∇log p is F/kT. Matching it needs no label (Hyvärinen, J. Mach. Learn. Res. 6, 695,
2005): the loss of Bukharin et al., ICML 2023, Eq. 3, with F = -∇E as their appendix
has it, ½abs(F)² + kT Tr ∇F. The trace is estimated along random directions
(Song et al., UAI 2020, sliced score matching with variance reduction).

It holds for equilibrium frames of a real level alone. Frames of one's own model's MD
would only teach the model its own distribution.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.core.errors import InputError
from alloop.core.units import BOLTZMANN
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.losses import Drawn, Targets

Energy = Callable[[Tensor], Tensor]  # positions (atoms, 3) Å -> energies (frames,)


def thermal_energy(temperature: float) -> float:
    """Return kT in eV for a temperature in K.

    Raises InputError where the temperature is not positive.
    """
    if not temperature > 0.0:
        raise InputError(
            f"expected the temperature in K that the frames were drawn at, got "
            f"{temperature}; score matching means nothing without it"
        )
    return BOLTZMANN * temperature


def random_directions(
    positions: Tensor, vectors: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return random signs (vectors, atoms, 3).

    Of all directions whose mean square is 1 they give the estimate the least variance.
    """
    shape = (vectors, *positions.shape)
    signs = torch.randint(0, 2, shape, generator=generator, dtype=positions.dtype)
    return 2.0 * signs.to(positions.device) - 1.0


def score_loss(energy: Energy, positions: Tensor, kT: float, along: Tensor) -> Tensor:
    """Return the mean over atoms of ½abs(F)² + kT v·∇(F·v), averaged over directions v.

    energy and kT have one unit, positions (atoms, 3) are in Å, along (vectors, atoms,
    3). The result can be differentiated with respect to whatever the energy depends on;
    it may be negative.
    """
    x = positions.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    forces = -gradient
    squares = 0.5 * (forces * forces).sum()
    divergences = [kT * _directional_divergence(forces, x, v) for v in along]
    return (squares + torch.stack(divergences).mean()) / len(x)


@dataclass(frozen=True, slots=True)
class ScoreLoss:
    """Score matching as an objective of `alloop.training.fit`, which reads no labels.

    kT in units of the network's scale. noise: Å of normal displacement, which smooths
    the distribution that is matched. vectors: the number of directions for the trace.
    """

    kT: float
    noise: float = 0.0
    vectors: int = 1

    @property
    def program(self) -> "ScoreLoss":
        """The loss itself: all of its settings are constants of compiled code."""
        return self

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:
        """Return directions (vectors, atoms, 3), and displacements (atoms, 3) in Å."""
        along = random_directions(graph.pos, self.vectors, generator)
        shape, dtype = graph.pos.shape, graph.pos.dtype
        moved = self.noise * torch.randn(shape, generator=generator, dtype=dtype)
        return along, moved.to(graph.pos.device)

    def __call__(
        self,
        network: Network,
        graph: Graph,
        target: Targets,  # noqa: ARG002
        drawn: Drawn,
    ) -> Tensor:
        """Return the loss of the network at the graph's frames, moved by the noise."""
        along, moved = drawn

        def energy(x: Tensor) -> Tensor:
            there = copy.copy(graph)
            there.pos = x
            found: Tensor = network(there).energies
            return found

        return score_loss(energy, graph.pos + moved, self.kT, along)


def _directional_divergence(forces: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Return v·∇(F·v), summed over atoms."""
    (change,) = torch.autograd.grad((forces * v).sum(), x, create_graph=True)
    return (change * v).sum()
