"""Uncertainty-driven dynamics: a bias that drives walkers to what surprises the model.

Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023), with the surprise of the scorer over
its threshold, S, in place of the spread of a committee: V = A (exp(-S²/B²) - 1). The
descriptors carry its gradient, so that a step costs a second pass through the network.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alloop.core.arrays import Place, on_host
from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.md.biases import UncertaintySettings, capped_forces
from alloop.md.dynamics import host_batch
from alloop.models.graph import to_graph
from alloop.potentials.learned import LearnedPotential
from alloop.scores.qresidual import QResidual

_TINY = 1e-12  # variance of descriptors, where training atoms of an element are alike


@dataclass(frozen=True, slots=True, eq=False)
class SurpriseBias:
    """The bias of a potential and the scorer fitted to it; implements Potential.

    With `settings.repulsion`, h, walkers of one molecule repel each other as well:
    Σ h exp(-d²/2σ²) over pairs, d² the mean over atoms of the squared distance of
    their descriptors, in units of their variance in training; each walker has half.
    threshold: the surprise at which S is 1. place: where the walkers' arrays are kept.
    All forces on a walker are scaled down alike where one is above the settings' limit.
    """

    potential: LearnedPotential
    scorer: QResidual
    threshold: float
    settings: UncertaintySettings
    place: Place = on_host

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return the bias (walkers,) in eV and its forces (atoms, 3) in eV/Å."""
        host, potential = host_batch(batch), self.potential
        graph = to_graph(host, potential.cutoff, potential.dtype, potential.device)
        graph.pos.requires_grad_()
        _, features = potential.frozen_network(graph)
        scorer = self.scorer.placed(
            lambda array: torch.tensor(array, device=potential.device)
        )
        zero = features.new_zeros(len(host), dtype=torch.float64)
        predictions = Predictions(zero, zero, features.double())
        surprise: Any = scorer.score(host, predictions)  # a tensor, as its features
        squares = (surprise / self.threshold / self.settings.width) ** 2
        bias = self.settings.strength * (torch.exp(-squares) - 1.0)
        if self.settings.repulsion:
            bias = bias + self._repulsion(host, features.double())
        (gradient,) = torch.autograd.grad(bias.sum(), graph.pos)
        forces = -gradient.double().cpu().numpy()
        limit = self.settings.force
        forces = capped_forces(forces, host.offsets, host.frame_index, limit)
        energies = bias.detach().cpu().numpy()
        return Predictions(self.place(energies), self.place(forces))

    def _repulsion(self, batch: Batch, features: torch.Tensor) -> torch.Tensor:
        """Return each walker's half of its pairs' energies (walkers,) in eV."""
        totals = {
            int(element): space.total
            for element, space in zip(
                self.scorer.elements, self.scorer.subspaces, strict=True
            )
        }
        parts = torch.split(features, batch.sizes.tolist())
        kinds: dict[bytes, list[int]] = {}
        for walker, numbers in enumerate(np.split(batch.numbers, batch.offsets[1:-1])):
            kinds.setdefault(numbers.tobytes(), []).append(walker)
        energies = features.new_zeros(len(batch))
        for walkers in kinds.values():
            numbers = batch.numbers[batch.frame_index == walkers[0]]
            spread = [max(totals.get(int(z), 1.0), _TINY) for z in numbers]
            scale = features.new_tensor(spread).mul(len(numbers)).rsqrt()[:, None]
            x = torch.stack([(scale * parts[walker]).flatten() for walker in walkers])
            squares = ((x[:, None] - x) ** 2).sum(-1) / self.settings.spacing**2
            hills = self.settings.repulsion * torch.exp(-0.5 * squares)
            hills = hills - torch.diag(torch.diag(hills))
            energies = energies.index_add(
                0, torch.tensor(walkers, device=energies.device), 0.5 * hills.sum(1)
            )
        return energies
