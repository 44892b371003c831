"""TensorNet: Simeon and De Fabritiis, NeurIPS 2023, Section 3.

An atom carries 3x3 tensors X = I + A + S, a channel each: a multiple of the identity,
an antisymmetric and a symmetric traceless part. They are kept as nine numbers in an
orthonormal basis: x (atoms, 9, F) holds 1 number of I, 3 of A and 5 of S. A rotation
mixes numbers within a part only, and the Frobenius norm |X|² is the sum of all squares.
Matrices are made only where two tensors are multiplied, once an atom and layer. Radial
functions are few Bessel functions under `cutoff_envelope`.
"""

import math
from typing import NamedTuple

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
from alloop.models.settings import TensorNetSettings

PARTS = [1, 3, 5]  # numbers in I, A and S


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
        pairs = zip(self.maps, irreducible_parts(x), strict=True)
        return torch.cat([W(part) for W, part in pairs], dim=1)


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
        received, sent = self.atoms(z).chunk(2, dim=-1)
        Z = received.index_select(0, edges.receivers)
        Z = Z + sent.index_select(0, edges.senders)
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

    def __init__(self, settings: TensorNetSettings) -> None:
        super().__init__(settings, settings.cutoff)
        channels, layers, radial = settings.channels, settings.layers, settings.radial
        self.elements = AtomEmbedding(channels)
        self.basis = BesselBasis(radial, settings.cutoff)
        self.embedding = Embedding(channels, radial)
        self.layers = nn.ModuleList(Layer(channels, radial) for _ in range(layers))
        self.scalars = nn.Sequential(
            nn.LayerNorm(3 * channels), nn.Linear(3 * channels, channels), nn.SiLU()
        )
        self.readout = two_layer_mlp(channels, max(channels // 2, 1), 1)

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        edges = self._edges(graph)
        x = self.embedding(self.elements(graph), edges)
        for layer in self.layers:
            x = layer(x, edges)
        scalars = self.scalars(squared_norms(x).flatten(1))
        return AtomOutput(self.readout(scalars).squeeze(-1), scalars)

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
    # Products of tensors would grow as powers of their norms from layer to layer.
    return x / (squared_norms(x).sum(dim=1, keepdim=True) + 1.0)


def _sum_edges(per_edge: Tensor, receivers: Tensor, atoms: int) -> Tensor:
    """Sum over the edges that arrive at an atom."""
    zero = per_edge.new_zeros(atoms, *per_edge.shape[1:])
    return zero.index_add(0, receivers, per_edge)


def irreducible_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Return I, A and S: (n, 1, F), (n, 3, F) and (n, 5, F)."""
    return torch.split(x, PARTS, dim=1)


def gated_parts(x: Tensor, gates: Tensor) -> Tensor:
    """Multiply I, A and S by their gates: (n, 9, F) and (n, 3, F) -> (n, 9, F)."""
    pairs = zip(irreducible_parts(x), torch.split(gates, 1, dim=1), strict=True)
    return torch.cat([part * gate for part, gate in pairs], dim=1)


def squared_norms(x: Tensor) -> Tensor:
    """Return |I|², |A|² and |S|²: (n, 9, F) -> (n, 3, F)."""
    return torch.stack(
        [(part * part).sum(dim=1) for part in irreducible_parts(x)], dim=1
    )


def direction_tensors(units: Tensor) -> Tensor:
    """Return the identity, r̂ as an antisymmetric tensor and r̂r̂ᵀ less its trace.

    Unit vectors (edges, 3) -> (edges, 9).
    """
    outer = units.unsqueeze(2) * units.unsqueeze(1)  # r̂r̂ᵀ (edges, 3, 3)
    identity = torch.full_like(units[:, :1], math.sqrt(3.0))
    symmetric = outer.flatten(1) @ _BASIS[4:].T.to(units)
    return torch.cat([identity, math.sqrt(2.0) * units, symmetric], dim=1)


def anticommutator(x: Tensor, y: Tensor) -> Tensor:
    """Return XY + YX, which is O(3)-equivariant, unlike XY: (atoms, 9, F)."""
    X, Y = _to_matrices(x), _to_matrices(y)
    left, right = torch.cat([X, Y], dim=-1), torch.cat([Y, X], dim=-1)
    xy, yx = torch.chunk(_matrix_product(left, right), 2, dim=-1)
    return _from_matrices(xy + yx)


def tensor_square(x: Tensor) -> Tensor:
    """Return X²: (atoms, 9, F)."""
    X = _to_matrices(x)
    return _from_matrices(_matrix_product(X, X))


def _to_matrices(x: Tensor) -> Tensor:
    """Convert (atoms, 9, F) to (atoms, 3, 3, F)."""
    flat = _BASIS.T.to(x) @ x
    return flat.view(x.shape[0], 3, 3, x.shape[2])


def _from_matrices(X: Tensor) -> Tensor:
    """Convert (atoms, 3, 3, F) to (atoms, 9, F)."""
    return _BASIS.to(X) @ X.flatten(1, 2)


def _matrix_product(X: Tensor, Y: Tensor) -> Tensor:
    """Return the matrix product of each atom and channel by three outer products."""
    columns = [column.unsqueeze(2) for column in X.unbind(dim=2)]  # (atoms, 3, 1, F)
    rows = [row.unsqueeze(1) for row in Y.unbind(dim=1)]  # (atoms, 1, 3, F)
    out = columns[0] * rows[0]
    for column, row in zip(columns[1:], rows[1:], strict=True):
        out = torch.addcmul(out, column, row)
    return out


def _orthonormal_basis() -> Tensor:
    """Return nine orthonormal 3x3 matrices, flat: (9, 9) in float64."""
    e = torch.eye(3, dtype=torch.float64)
    pairs = [(0, 1), (1, 2), (2, 0)]
    outer = [torch.outer(e[i], e[j]) for i, j in pairs]
    turns = [(m.T - m) / math.sqrt(2.0) for m in (outer[1], outer[2], outer[0])]
    # Orthonormal by Tr(AᵀB), so that squares of the numbers sum to |X|².
    mixed = [(m + m.T) / math.sqrt(2.0) for m in outer]
    planar = torch.diag(e[0] - e[1]) / math.sqrt(2.0)
    axial = torch.diag(2.0 * e[2] - e[0] - e[1]) / math.sqrt(6.0)
    identity = torch.diag(e.sum(dim=0)) / math.sqrt(3.0)
    return torch.stack([identity, *turns, *mixed, planar, axial]).flatten(1)


_BASIS = _orthonormal_basis()
