"""E(n)-GNN: Satorras, Hoogeboom, Welling, ICML 2021, Eqs. 3, 5, 6 and 8.

The energy is made of invariants and forces are its gradient, so coordinates are not
updated (Eq. 4 is left out, as the paper does for molecular properties). Distances enter
through radial functions under an envelope, which ends a message smoothly at the cutoff.
"""

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import (
    AtomEmbedding,
    AtomOutput,
    BesselBasis,
    Network,
    cutoff_envelope,
    two_layer_mlp,
)
from alloop.models.pyg import MessagePassing
from alloop.models.settings import EGNNSettings


class EGNNLayer(MessagePassing):  # type: ignore[misc]
    """The layer h_i + φ_h(h_i, Σ_j e_ij m_ij) with m_ij = φ_e(h_i, h_j, r_ij)."""

    def __init__(self, channels: int, radial: int) -> None:
        super().__init__(node_dim=0)
        # φ_e's first layer is linear in (h_i, h_j, basis): the atoms' part is computed
        # once per atom, not once per edge.
        self.atoms = nn.Linear(channels, 2 * channels, bias=False)
        self.edges = nn.Linear(radial, channels)
        self.phi_e = nn.Sequential(nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())
        self.gate = nn.Linear(channels, 1)  # φ_inf
        self.phi_h = two_layer_mlp(2 * channels, channels, channels)

    def forward(self, h: Tensor, basis: Tensor, end: Tensor, edges: Tensor) -> Tensor:
        received, sent = self.atoms(h).chunk(2, dim=-1)  # (atoms, F) each
        m = self.propagate(
            edges,
            x=(sent, received),
            radial=self.edges(basis),
            end=end,
            size=(h.shape[0], h.shape[0]),
        )
        update: Tensor = self.phi_h(torch.cat([h, m], dim=-1))  # Eq. 6
        return h + update

    def message(self, x_i: Tensor, x_j: Tensor, radial: Tensor, end: Tensor) -> Tensor:
        """Return e_ij m_ij times the envelope: (edges, F)."""
        m: Tensor = self.phi_e(x_i + x_j + radial)  # Eq. 3
        return m * (torch.sigmoid(self.gate(m)) * end)  # Eq. 8

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """Sum over the edges that arrive at an atom, Eq. 5."""
        zero = inputs.new_zeros(dim_size, inputs.shape[1])
        return zero.index_add(0, index, inputs)


class EGNN(Network):
    """The E(n)-GNN network: energies are sums over atoms of an MLP of h.

    Descriptors are the last h. channels is the width F, radial the number of Bessel
    functions, cutoff in Å. The defaults of depth and width are those of Bukharin et al.
    (ICML 2023).
    """

    def __init__(self, settings: EGNNSettings) -> None:
        super().__init__(settings, settings.cutoff)
        channels, layers, radial = settings.channels, settings.layers, settings.radial
        self.embedding = AtomEmbedding(channels)
        self.basis = BesselBasis(radial, settings.cutoff)
        self.layers = nn.ModuleList(EGNNLayer(channels, radial) for _ in range(layers))
        self.readout = two_layer_mlp(channels, channels, 1)

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        r = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)  # (edges,) Å
        basis = self.basis(r)
        end = cutoff_envelope(r, self.cutoff).unsqueeze(-1)  # (edges, 1)
        h = self.embedding(graph)
        for layer in self.layers:
            h = layer(h, basis, end, graph.edge_index)
        return AtomOutput(self.readout(h).squeeze(-1), h)
