"""PaiNN: Schütt, Unke, Gastegger, Equivariant message passing, ICML 2021, Figure 2.

Atoms carry scalars s (atoms, F) and vectors v (atoms, 3, F). The filters W(r) are
smoothed by `cutoff_envelope` instead of the paper's cosine, and |Vv| by a small
constant, so that forces stay continuous where an atom crosses the cutoff or a vector
vanishes.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import (
    AtomEmbedding,
    AtomOutput,
    BesselBasis,
    Envelope,
    Network,
    cutoff_envelope,
    two_layer_mlp,
)
from alloop.models.pyg import MessagePassing
from alloop.models.settings import PaiNNSettings

_FAST_WIDTH = 16  # (576, 576) times (576, 16) takes 0.15 ms, (576, 9) 0.5 ms


class PaiNNFeatures(NamedTuple):
    """Features of atoms: s (atoms, F) and v (atoms, 3, F)."""

    s: Tensor
    v: Tensor


class Message(MessagePassing):  # type: ignore[misc]
    """The message block (Fig. 2b).

    Δs_i = Σ_j φ_s W_s and Δv_i = Σ_j v_j φ_vv W_vv + φ_vs W_vs r̂_ij.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(node_dim=0)
        self.phi = two_layer_mlp(channels, channels, 3 * channels)

    def forward(
        self, x: PaiNNFeatures, W: Tensor, unit: Tensor, edges: Tensor
    ) -> PaiNNFeatures:
        atoms = x.s.shape[0]
        ds, dv = self.propagate(
            edges, phi=self.phi(x.s), v=x.v, W=W, unit=unit, size=(atoms, atoms)
        )
        return PaiNNFeatures(x.s + ds, x.v + dv)

    def message(
        self, phi_j: Tensor, v_j: Tensor, W: Tensor, unit: Tensor
    ) -> PaiNNFeatures:
        """Return the message of each edge: (edges, F) and (edges, 3, F)."""
        ds, keep, turn = (phi_j * W).unsqueeze(1).chunk(3, dim=-1)  # (edges, 1, F)
        dv = torch.addcmul(v_j * keep, unit.unsqueeze(-1), turn)  # (edges, 3, F)
        return PaiNNFeatures(ds.squeeze(1), dv)

    def aggregate(
        self, inputs: PaiNNFeatures, index: Tensor, dim_size: int
    ) -> PaiNNFeatures:
        """Sum over the edges that arrive at an atom."""
        s, v = inputs
        return PaiNNFeatures(
            s.new_zeros(dim_size, *s.shape[1:]).index_add(0, index, s),
            v.new_zeros(dim_size, *v.shape[1:]).index_add(0, index, v),
        )


class Update(nn.Module):
    """The update block (Fig. 2c).

    Δs = a_ss + a_sv ⟨Uv, Vv⟩ and Δv = a_vv Uv, a = MLP(s, |Vv|). Lengths are softened,
    |v| = √(v² + softening): without that they have a kink where a vector vanishes, as
    symmetry makes some do in the plane of a planar molecule.
    """

    def __init__(self, channels: int, softening: float) -> None:
        super().__init__()
        self.softening = softening
        self.UV = nn.Linear(channels, 2 * channels, bias=False)
        self.a = two_layer_mlp(2 * channels, channels, 3 * channels)

    def forward(self, x: PaiNNFeatures) -> PaiNNFeatures:
        Uv, Vv = self.UV(x.v).chunk(2, dim=-1)  # (atoms, 3, F) each
        length = torch.sqrt((Vv * Vv).sum(dim=1) + self.softening)  # (atoms, F)
        a_ss, a_sv, a_vv = self.a(torch.cat([x.s, length], dim=-1)).chunk(3, dim=-1)
        s = x.s + a_ss + a_sv * (Uv * Vv).sum(dim=1)
        return PaiNNFeatures(s, torch.addcmul(x.v, a_vv.unsqueeze(1), Uv))


class PaiNN(Network):
    """The PaiNN network: energies are sums over atoms of an MLP of s.

    Descriptors are the last s. channels is F, radial the number of Bessel functions
    (few are smoother), cutoff in Å, radius that of a refined model. Networks with other
    blocks say so by the class variables, and by `first_features` and `directions`.
    """

    message_block: ClassVar[type[nn.Module]] = Message
    update_block: ClassVar[type[nn.Module]] = Update
    filters_of_edge: ClassVar[int] = 3

    def __init__(self, settings: PaiNNSettings) -> None:
        radius = settings.radius or settings.cutoff
        super().__init__(settings, radius)
        channels, layers = settings.channels, settings.layers
        self.embedding = AtomEmbedding(channels)
        self.envelope = Envelope(cutoff_envelope, settings.cutoff, radius)
        self.basis = BesselBasis(settings.radial, settings.cutoff)
        width = layers * self.filters_of_edge * channels
        self.filters = nn.Linear(settings.radial, width)
        self.messages = nn.ModuleList(
            self.message_block(channels) for _ in range(layers)
        )
        self.updates = nn.ModuleList(
            self.update_block(channels, settings.softening) for _ in range(layers)
        )
        self.readout = two_layer_mlp(channels, max(channels // 2, 1), 1)

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)  # (edges,) Å
        directions = self.directions(vectors / r.unsqueeze(-1))
        filters = self.smooth_filters(r).chunk(len(self.messages), dim=-1)
        x = self.first_features(self.embedding(graph))
        for message, update, w in zip(
            self.messages, self.updates, filters, strict=True
        ):
            x = update(message(x, w, directions, graph.edge_index))
        return AtomOutput(self.readout(x.s).squeeze(-1), x.s, x.v)

    def smooth_filters(self, r: Tensor) -> Tensor:
        """Return the filters of all layers times the envelope, (edges, width).

        The envelope enters before the matrix product, where an edge has few numbers;
        zeros fill these up to a number that makes the product's derivative fast.
        """
        envelope = self.envelope(r).unsqueeze(-1)
        inputs = torch.cat([self.basis(r) * envelope, envelope], dim=-1)
        bias = self.filters.bias.unsqueeze(-1)
        weight = torch.cat([self.filters.weight, bias], dim=-1)
        zeros = (0, -inputs.shape[1] % _FAST_WIDTH)
        return linear(pad(inputs, zeros), pad(weight, zeros))

    def first_features(self, s: Tensor) -> Any:
        """Return the features of the first layer, with embeddings s (atoms, F)."""
        return PaiNNFeatures(s, s.new_zeros(s.shape[0], 3, s.shape[1]))

    def directions(self, unit: Tensor) -> Any:
        """Return what messages read of the edges' unit vectors (edges, 3)."""
        return unit
