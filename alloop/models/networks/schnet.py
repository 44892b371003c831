"""SchNet: Schütt et al., NeurIPS 2017, made of torch-geometric's own layers.

The neighbours are alloop's, charge and spin join the elements, and filters end under
`cutoff_envelope` instead of half a cosine, which has one continuous derivative only and
rises again beyond the cutoff.
"""

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import AtomEmbedding, AtomOutput, Network, cutoff_envelope
from alloop.models.pyg import schnet
from alloop.models.settings import SchNetSettings


class Convolution(schnet.CFConv):  # type: ignore[misc]
    """The convolution Σ_j x_j W(r_ij), with filters that end under the envelope."""

    def forward(self, x: Tensor, edges: Tensor, end: Tensor, basis: Tensor) -> Tensor:
        W = self.nn(basis) * end
        out: Tensor = self.lin2(self.propagate(edges, x=self.lin1(x), W=W))
        return out


class SchNet(Network):
    """The SchNet network: energies are sums over atoms of an MLP of x.

    Descriptors are the last x. channels is the width of atoms and filters, layers the
    number of interactions, radial that of the Gaussians (2 or more), cutoff in Å. The
    defaults are torch-geometric's for half of its cutoff of 10 Å.
    """

    def __init__(self, settings: SchNetSettings) -> None:
        super().__init__(settings, settings.cutoff)
        channels, layers, radial = settings.channels, settings.layers, settings.radial
        self.embedding = AtomEmbedding(channels)
        self.basis = schnet.GaussianSmearing(0.0, settings.cutoff, radial)
        self.layers = nn.ModuleList(
            interaction_block(channels, radial, settings.cutoff) for _ in range(layers)
        )
        half = max(channels // 2, 1)
        self.readout = nn.Sequential(
            nn.Linear(channels, half), schnet.ShiftedSoftplus(), nn.Linear(half, 1)
        )

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        r = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)  # (edges,) Å
        basis = self.basis(r)
        end = cutoff_envelope(r, self.cutoff).unsqueeze(-1)  # (edges, 1)
        x = self.embedding(graph)
        for layer in self.layers:
            x = x + layer(x, graph.edge_index, end, basis)
        return AtomOutput(self.readout(x).squeeze(-1), x)


def interaction_block(channels: int, radial: int, cutoff: float) -> nn.Module:
    """Return an interaction block whose convolution ends under `cutoff_envelope`."""
    block = schnet.InteractionBlock(channels, radial, channels, cutoff)
    block.conv = Convolution(channels, channels, channels, block.mlp, cutoff)
    out: nn.Module = block
    return out
