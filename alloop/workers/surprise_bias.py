"""Uncertainty-driven dynamics: a bias that drives walkers to what surprises the model.

Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023), with the surprise of the scorer over
its threshold, S, in place of the spread of a committee: V = A (exp(-S²/B²) - 1). The
descriptors carry its gradient, so that a step costs a second pass through the network.
"""

from dataclasses import dataclass
from typing import Any

import torch

from alloop.core.arrays import Place, on_host, segment_maxima
from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.md.biases import UncertaintySettings
from alloop.md.dynamics import host_batch
from alloop.models.graph import to_graph
from alloop.potentials.learned import LearnedPotential
from alloop.scores.qresidual import QResidual


@dataclass(frozen=True, slots=True, eq=False)
class SurpriseBias:
    """The bias of a potential and the scorer fitted to it; implements Potential.

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
        (gradient,) = torch.autograd.grad(bias.sum(), graph.pos)
        forces = -gradient.double().cpu().numpy()
        lengths = (forces**2).sum(axis=1) ** 0.5
        largest = segment_maxima(lengths, host.offsets).clip(self.settings.force)
        forces *= (self.settings.force / largest)[host.frame_index, None]
        energies = bias.detach().cpu().numpy()
        return Predictions(self.place(energies), self.place(forces))
