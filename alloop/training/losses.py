"""ASTEROID's losses (Bukharin et al., ICML 2023, Eqs. 1 and 2), pure functions.

Errors are divided by `scale`, the root mean square of the label's force components in
eV/Å (energies by scale x 1 Å), so that ρ and the learning rate mean the same for every
molecule.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
