"""TensorNet: Simeon and De Fabritiis, NeurIPS 2023, Section 3.

An atom carries 3x3 tensors X = I + A + S, a channel each: a multiple of the identity,
an antisymmetric and a symmetric traceless part. They are kept as nine numbers
(`alloop.models.cartesian_tensors`); matrices are made only where two tensors are
multiplied, once an atom and layer. Radial functions are few Bessel functions under
`cutoff_envelope`.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.cartesian_tensors import (
    anticommutator,
    direction_tensors,
    gated_parts,
    irreducible_parts,
    squared_norms,
    tensor_square,
)
from alloop.models.graph import Graph, edge_vectors, sum_frames
from alloop.models.layers import (
    AtomEmbedding,
    BesselBasis,
    Network,
    NetworkOutput,
    cutoff_envelope,
    two_layer_mlp,
)


class TensorEdges(NamedTuple):
    """The edges of a graph and their features.

    senders and receivers (edges,), radial functions (edges, radial), the envelope
    (edges, 1) and the tensors of the directions (edges, 9).
    """

    senders: Tensor
    receivers: Tensor
    basis: Tensor
    end: Tensor
    tensors: Tensor


class ChannelMix(nn.Module):
    """Linear maps of the channels of I, A and S, each by its own weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Linear(channels, channels, bias=False) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        each = zip(self.maps, irreducible_parts(x), strict=True)
        return torch.cat([W(part) for W, part in each], dim=1)


class Embedding(nn.Module):
    """The embedding X_i = Σ_j φ(r) Z_ij (f_I I + f_A A + f_S S).

    It is gated by a function of |X_i|².
    """

    def __init__(self, channels: int, radial: int) -> None:
        super().__init__()
        # Z_ij is linear in the elements of i and j.
        self.atoms = nn.Linear(channels, 2 * channels)
        self.radial = nn.Linear(radial, 3 * channels)
        self.norm = nn.LayerNorm(channels)
        self.gates = two_layer_mlp(channels, 2 * channels, 3 * channels)
        self.mix = ChannelMix(channels)

    def forward(self, z: Tensor, edges: TensorEdges) -> Tensor:
        own, other = self.atoms(z).chunk(2, dim=-1)
        Z = own.index_select(0, edges.receivers) + other.index_select(0, edges.senders)
        f = _split_channels(self.radial(edges.basis) * edges.end) * Z.unsqueeze(1)
        pairs = gated_parts(edges.tensors.unsqueeze(2), f)  # (edges, 9, F)
        x = _sum_edges(pairs, edges.receivers, z.shape[0])
        gates = nn.functional.silu(self.gates(self.norm(squared_norms(x).sum(dim=1))))
        return gated_parts(self.mix(x), _split_channels(gates))


class Layer(nn.Module):
    """The interaction layer X + ΔX + ΔX².

    ΔX is made from YM + MY, M_i = Σ_j φ(r) (f_I I_j + f_A A_j + f_S S_j). M is made of
    Y, and Y is X with mixed channels. X and YM + MY are divided by 1 + |·|² before
    their channels mix.
    """

    def __init__(self, channels: int, radial: int) -> None:
        super().__init__()
        self.radial = two_layer_mlp(radial, channels, 3 * channels)
        self.inside = ChannelMix(channels)
        self.outside = ChannelMix(channels)

    def forward(self, x: Tensor, edges: TensorEdges) -> Tensor:
        x = _normalised_tensor(x)
        y = self.inside(x)
        f = nn.functional.silu(self.radial(edges.basis)) * edges.end
        sent = gated_parts(y.index_select(0, edges.senders), _split_channels(f))
        message = _sum_edges(sent, edges.receivers, x.shape[0])
        change = self.outside(_normalised_tensor(anticommutator(y, message)))
        out: Tensor = x + change + tensor_square(change)
        return out


class TensorNet(Network):
    """The TensorNet network: energies are sums over atoms of an MLP of scalars.

    The scalars are |I|², |A|² and |S|²; descriptors are what the MLP's readout reads.
    channels is the width F, radial the number of Bessel functions, cutoff in Å.
    """

    kind: ClassVar[str] = "tensornet"

    def __init__(
        self,
        channels: int = 64,
        layers: int = 2,
        radial: int = 8,
        cutoff: float = 5.0,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "channels": channels,
            "layers": layers,
            "radial": radial,
            "cutoff": cutoff,
        }
        self.cutoff = cutoff
        self.elements = AtomEmbedding(channels)
        self.basis = BesselBasis(radial, cutoff)
        self.embedding = Embedding(channels, radial)
        self.layers = nn.ModuleList(Layer(channels, radial) for _ in range(layers))
        self.scalars = nn.Sequential(
            nn.LayerNorm(3 * channels), nn.Linear(3 * channels, channels), nn.SiLU()
        )
        self.readout = two_layer_mlp(channels, max(channels // 2, 1), 1)

    def forward(self, graph: Graph) -> NetworkOutput:
        edges = self._edges(graph)
        x = self.embedding(self.elements(graph), edges)
        for layer in self.layers:
            x = layer(x, edges)
        scalars = self.scalars(squared_norms(x).flatten(1))
        energies = sum_frames(self.readout(scalars).squeeze(-1), graph)
        return NetworkOutput(energies, scalars)

    def _edges(self, graph: Graph) -> TensorEdges:
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)  # (edges,) Å
        end = cutoff_envelope(r, self.cutoff).unsqueeze(-1)
        tensors = direction_tensors(vectors / r.unsqueeze(-1))
        senders, receivers = graph.edge_index
        return TensorEdges(senders, receivers, self.basis(r), end, tensors)


def _split_channels(x: Tensor) -> Tensor:
    """Reshape (n, 3F) to (n, 3, F)."""
    return x.view(x.shape[0], 3, x.shape[1] // 3)


def _normalised_tensor(x: Tensor) -> Tensor:
    return x / (squared_norms(x).sum(dim=1, keepdim=True) + 1.0)


def _sum_edges(per_edge: Tensor, receivers: Tensor, atoms: int) -> Tensor:
    """Sum over the edges that arrive at an atom."""
    zero = per_edge.new_zeros(atoms, *per_edge.shape[1:])
    return zero.index_add(0, receivers, per_edge)
