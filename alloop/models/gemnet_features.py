"""The inputs of GemNet: distances and angles as features of a graph's edges."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph, edge_vectors
from alloop.models.incoming_edges import IncomingEdges, incoming_edges
from alloop.models.layers import BesselBasis, late_envelope
from alloop.models.scaled_layers import scaled_linear
from alloop.models.spherical_basis import SphericalBessel, legendre_polynomials

WIDTH = 16  # features of a distance, made once for all blocks


class GemNetEdges(NamedTuple):
    """The edge features that all blocks read.

    What depends on a distance is zero beyond the cutoff. gates, atoms and outs (edges,
    16): distances for the messages of a triplet, for sums over an atom's edges and for
    the energy. circles (edges, 16, spherical) and angles (atoms, width * spherical,
    width): the two factors of the circular basis.
    """

    senders: Tensor
    receivers: Tensor
    arrivals: IncomingEdges
    gates: Tensor
    atoms: Tensor
    outs: Tensor
    circles: Tensor
    angles: Tensor


class GemNetFeatures(nn.Module):
    """The layer that turns distances and angles of a graph into features."""

    def __init__(self, spherical: int, radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.spherical = spherical
        self.bessel = BesselBasis(radial, cutoff)
        self.sphere = SphericalBessel(spherical, radial, cutoff)
        self.radial = nn.ModuleList(scaled_linear(radial, WIDTH) for _ in range(3))
        self.circle = nn.ModuleList(
            scaled_linear(radial, WIDTH) for _ in range(spherical)
        )

    def forward(self, graph: Graph) -> tuple[Tensor, GemNetEdges]:
        """Return radial functions (edges, radial), and the features for the blocks."""
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)  # (edges,) Å
        end = late_envelope(r, self.cutoff).unsqueeze(-1)
        basis = self.bessel(r) * end
        rows = incoming_edges(graph)
        gates, atoms, outs = (layer(basis) for layer in self.radial)
        circles = self._circles(self.sphere(r) * end.unsqueeze(-1))
        angles = self._angles(rows.to_rows(vectors / r.unsqueeze(-1)))
        senders, receivers = graph.edge_index
        return basis, GemNetEdges(
            senders, receivers, rows, gates, atoms, outs, circles, angles
        )

    def _circles(self, functions: Tensor) -> Tensor:
        """Convert (edges, spherical, radial) to (edges, 16, spherical)."""
        each = zip(self.circle, functions.unbind(dim=1), strict=True)
        return torch.stack([layer(f) for layer, f in each], dim=2)

    def _angles(self, units: Tensor) -> Tensor:
        """Convert directions (atoms, width, 3) to (atoms, width * spherical, width)."""
        cosines = units @ units.transpose(1, 2)
        others = 1.0 - torch.eye(units.shape[1], dtype=units.dtype, device=units.device)
        found = torch.stack(legendre_polynomials(cosines, self.spherical), dim=2)
        return (found * others.unsqueeze(1)).flatten(1, 2)  # no edge with itself
