"""ASTEROID's losses (Bukharin et al., ICML 2023, Eqs. 1 and 2), and their gradients.

Errors are divided by `scale`, the root mean square of the label's force components in
eV/Å (energies by scale x 1 Å), so that ρ and the learning rate mean the same for every
molecule.

Sliced score matching learns forces from frames without labels. Frames of an
equilibrium at temperature T are distributed as p ∝ exp(-E/kT), whose score ∇log p is
F/kT. Matching it needs no label (Hyvärinen, J. Mach. Learn. Res. 6, 695, 2005): the
loss of Bukharin et al., Eq. 3, with F = -∇E as their appendix has it, ½abs(F)² + kT Tr
∇F. The trace is estimated along random directions (Song et al., UAI 2020, sliced score
matching with variance reduction). It holds for equilibrium frames of a real level
alone. Frames of one's own model's MD would only teach the model its own distribution.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from alloop.core.errors import InputError
from alloop.core.stress import VOIGT
from alloop.core.units import BOLTZMANN
from alloop.models.graph import Graph
from alloop.models.network import Network, energy_and_forces, energy_forces_virial

Drawn: TypeAlias = tuple[Tensor, ...]  # random numbers and weights of one step

Energy = Callable[[Tensor], Tensor]  # positions (atoms, 3) Å -> energies (frames,)


class BatchCounts(NamedTuple):
    """The numbers of a batch by which the losses of its parts are divided.

    So the losses of all parts add up to the batch's. At least 1 each, so that batches
    without any force or stress give 0/1 and not 0/0.
    """

    frames: float
    atoms: float
    labelled_atoms: float
    stresses: float


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The targets of a batch, in units of the scale.

    energies (frames,) less the references, forces (atoms, 3), weights (frames,) of mean
    1, owner (atoms,) the frame of each atom. virial (frames, 6): the stress times
    volume over the number of atoms, NaN for frames without; None where no frame of the
    pool has one. labelled (atoms,): 1 for atoms with a force, 0 for those of frames
    whose label is an energy alone; None where the whole pool has forces. counts: those
    of the batch that this is a part of, None for a whole batch.
    """

    energies: Tensor
    forces: Tensor
    weights: Tensor
    owner: Tensor
    virial: Tensor | None = None
    labelled: Tensor | None = None
    counts: BatchCounts | None = None

    def count(self) -> BatchCounts:
        """Return the `counts` for parts of this batch."""
        frames, atoms = len(self.energies), len(self.owner)
        labelled = atoms if self.labelled is None else float(self.labelled.sum())
        stresses = 0.0
        if self.virial is not None:
            stresses = float(torch.isfinite(self.virial[:, 0]).sum())
        return BatchCounts(frames, atoms, max(labelled, 1.0), max(stresses, 1.0))


class Objective(Hashable, Protocol):
    """The loss that a step minimises: a pure function of its arguments.

    It must be a frozen dataclass of numbers, of which saved states keep the `identity`.
    It may use no random numbers but those from `draw`.
    """

    @property
    def program(self) -> Hashable:
        """All that compiled code of it depends on and that `draw` does not return."""

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:
        """Return what differs between steps or stages that share compiled code.

        Random numbers and weights for a step on this graph, of fixed shapes.
        """

    def __call__(
        self, network: Network, graph: Graph, target: Targets, drawn: Drawn
    ) -> Tensor:
        """Return the loss, a scalar that is differentiable by the network's weights."""


@dataclass(frozen=True, slots=True)
class LabelLoss:
    """The loss on labels: `energy` is ρ, `norm` that of `force_errors`."""

    energy: float
    norm: str = "l2"

    @property
    def program(self) -> Hashable:
        """The name of the loss with all of its settings but ρ, which is an input."""
        return ("labels", self.norm)

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:  # noqa: ARG002
        """Return the weights of forces and energies, 1 - ρ and ρ."""
        return _loss_weights(self.energy, graph)

    def __call__(
        self,
        network: Network,
        graph: Graph,
        target: Targets,
        drawn: Drawn,
    ) -> Tensor:
        """Return (1 - ρ) ℓ_f + ρ ℓ_e of the network's predictions.

        drawn: the weights; empty for those of this loss as constants.
        """
        said = energy_and_forces(network, graph, create_graph=True)
        weights = drawn or (1.0 - self.energy, self.energy)
        return total_loss(said.energies, said.forces, target, weights, self.norm)


@dataclass(frozen=True, slots=True)
class EnergyLoss:
    """The loss on labels that are energies alone: ρ is 1, and no force is computed."""

    @property
    def program(self) -> Hashable:
        """The name of the loss."""
        return "energies"

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:  # noqa: ARG002
        """Return nothing: a step needs no random numbers."""
        return ()

    def __call__(
        self,
        network: Network,
        graph: Graph,
        target: Targets,
        drawn: Drawn,  # noqa: ARG002
    ) -> Tensor:
        """Return ℓ_e of the network's predictions."""
        energies, _ = network(graph)
        return energy_loss(energies, target)


@dataclass(frozen=True, slots=True)
class CellLoss:
    """The loss on labels of which some have a stress.

    energy and norm as of `LabelLoss`; stress: the weight of the virials' errors beside
    those of forces and energies.
    """

    energy: float
    norm: str = "l2"
    stress: float = 0.1

    @property
    def program(self) -> Hashable:
        """The name of the loss with all of its settings but ρ, which is an input."""
        return ("cells", self.norm, self.stress)

    def draw(self, graph: Graph, generator: torch.Generator) -> Drawn:  # noqa: ARG002
        """Return the weights of forces and energies, 1 - ρ and ρ."""
        return _loss_weights(self.energy, graph)

    def __call__(
        self,
        network: Network,
        graph: Graph,
        target: Targets,
        drawn: Drawn,
    ) -> Tensor:
        """Return (1 - ρ) ℓ_f + ρ ℓ_e plus the weighted `virial_loss`.

        drawn: the weights; empty for those of this loss as constants.
        """
        said, virial = energy_forces_virial(network, graph, create_graph=True)
        weights = drawn or (1.0 - self.energy, self.energy)
        loss = total_loss(said.energies, said.forces, target, weights, self.norm)
        return loss + self.stress * virial_loss(virial, target)


def force_errors(predicted: Tensor, target: Tensor, norm: str = "l2") -> Tensor:
    """Return the error of each atom's force, (atoms,).

    norm: "l2" for the error's length, "l1" for the mean of its absolute components.
    """
    difference = predicted - target  # (atoms, 3)
    if norm == "l1":
        return difference.abs().mean(dim=1)
    length: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return length


def force_loss(predicted: Tensor, target: Targets, norm: str = "l2") -> Tensor:
    """Return the mean over atoms with a force of w ℓ_f, in units of the scale."""
    errors = target.weights[target.owner] * force_errors(predicted, target.forces, norm)
    if target.labelled is not None:
        errors = target.labelled * errors
    if target.counts is not None:
        return errors.sum() / target.counts.labelled_atoms
    if target.labelled is None:
        return errors.mean()
    # Batches of energies alone: 0/1 and not 0/0.
    return errors.sum() / target.labelled.sum().clamp(min=1.0)


def energy_loss(predicted: Tensor, target: Targets) -> Tensor:
    """Return the mean over frames of w abs(E - E_label), in units of the scale."""
    errors = target.weights * (predicted - target.energies).abs()
    if target.counts is None:
        return errors.mean()
    return errors.sum() / target.counts.frames


def virial_loss(predicted: Tensor, target: Targets) -> Tensor:
    """Return the mean over frames with a stress of w times the error of the virial.

    predicted: dE/dstrain (frames, 3, 3) in units of the scale. The error is the mean of
    the absolute components of the virial per atom; it is 0 where no frame has a stress.
    """
    reference = target.virial
    if reference is None:
        return predicted.new_zeros(())
    ones = torch.ones_like(target.owner, dtype=predicted.dtype)
    sizes = predicted.new_zeros(len(reference)).index_add(0, target.owner, ones)
    # Virials grow with the cell; per atom large cells do not outweigh small ones.
    per_atom = voigt_components(predicted) / sizes.unsqueeze(1)
    finite = torch.isfinite(reference)
    off = torch.where(finite, per_atom - torch.nan_to_num(reference), 0.0).abs()
    errors = (target.weights * off.mean(dim=1)).sum()
    if target.counts is not None:
        return errors / target.counts.stresses
    # Batches without any stress: 0/1 and not 0/0.
    return errors / finite[:, 0].to(predicted.dtype).sum().clamp(min=1.0)


def voigt_components(tensor: Tensor) -> Tensor:
    """Return symmetrised tensors (frames, 3, 3) in Voigt order (frames, 6)."""
    both = 0.5 * (tensor + tensor.transpose(1, 2))
    rows, columns = zip(*VOIGT, strict=True)
    return both[:, rows, columns]


def total_loss(
    energies: Tensor,
    forces: Tensor,
    target: Targets,
    weights: Sequence[Tensor | float],
    norm: str = "l2",
) -> Tensor:
    """Return (1 - ρ) ℓ_f + ρ ℓ_e: Eq. 1 with unit weights, Eq. 2 with bias weights.

    weights: 1 - ρ and ρ.
    """
    of_forces, of_energies = weights
    force = of_forces * force_loss(forces, target, norm)
    return force + of_energies * energy_loss(energies, target)


def _loss_weights(rho: float, graph: Graph) -> Drawn:
    return graph.pos.new_tensor(1.0 - rho), graph.pos.new_tensor(rho)


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


def loss_gradient(loss: Tensor, weights: Sequence[Tensor]) -> LossGradient:
    """Return a loss and its gradient: zeros for weights it does not depend on."""
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return LossGradient(loss.detach(), gradients)


def eager_gradients(network: Network, objective: Objective) -> GradientFunction:
    """Return a gradient function that runs torch without compilation."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]

    def gradients(graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        return loss_gradient(objective(network, graph, target, drawn), weights)

    return gradients


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
    # The mean of v·∇(F·v) over random v is the trace of ∇F (Hutchinson).
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
        target: Targets,
        drawn: Drawn,
    ) -> Tensor:
        """Return the loss of the network at the graph's frames, moved by the noise."""
        along, moved = drawn

        def energy(x: Tensor) -> Tensor:
            there = copy.copy(graph)
            there.pos = x
            energies: Tensor = network(there).energies
            return energies

        loss = score_loss(energy, graph.pos + moved, self.kT, along)
        if target.counts is None:
            return loss
        return loss * len(graph.pos) / target.counts.atoms


def _directional_divergence(forces: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Return v·∇(F·v), summed over atoms."""
    (change,) = torch.autograd.grad((forces * v).sum(), x, create_graph=True)
    return (change * v).sum()
