"""ViSNet: Wang et al., Nature Communications 15, 313 (2024), by torch-geometric.

The neighbours are alloop's, without the loop from each atom to itself, and charge and
spin join the elements. Three things differ from torch-geometric, so that forces are
smooth: edges end under `cutoff_envelope` instead of half a cosine; s_proj, which reads
the message after the cutoff, has no bias, which would contribute for atoms beyond the
cutoff; and the lengths of vector features are softened as in
`alloop.models.networks.painn`, for atoms alone or in a line.
"""

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import (
    ELEMENTS,
    AtomEmbedding,
    AtomOutput,
    Network,
    cutoff_envelope,
)
from alloop.models.pyg import visnet
from alloop.models.settings import ViSNetSettings

_SOFT = 1e-4  # added to a vector feature's squared length


class EnvelopeModule(nn.Module):
    """`cutoff_envelope` as a module, in place of a cosine cutoff."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, r: Tensor) -> Tensor:
        return cutoff_envelope(r, self.cutoff)


class Neighbours(visnet.NeighborEmbedding):  # type: ignore[misc]
    """The embedding of the elements around each atom.

    An atom's own images in a cell are neighbours too, other than in torch-geometric.
    """

    def forward(
        self, z: Tensor, x: Tensor, edges: Tensor, r: Tensor, basis: Tensor
    ) -> Tensor:
        W = self.distance_proj(basis) * self.cutoff(r).unsqueeze(-1)
        around = self.propagate(edges, x=self.embedding(z), W=W)
        out: Tensor = self.combine(torch.cat([x, around], dim=1))
        return out


class Gated(visnet.GatedEquivariantBlock):  # type: ignore[misc]
    """A gate of scalars and vectors that reads the vectors' softened lengths."""

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        length = torch.sqrt(self.vec1_proj(v).square().sum(dim=-2) + _SOFT)
        out = self.update_net(torch.cat([x, length], dim=-1))
        x, gate = out.split(self.out_channels, dim=-1)
        v = gate.unsqueeze(1) * self.vec2_proj(v)
        return (x if self.act is None else self.act(x)), v


class ViSNet(Network):
    """The ViSNet network: energies are sums over atoms of gated scalars.

    Descriptors are the last scalars. channels is the width, a multiple of heads; radial
    the number of radial functions, cutoff in Å. Directions enter as vectors (l = 1).
    torch-geometric's own defaults are channels 128 and layers 6. Raises InputError for
    channels that are not a multiple of heads.
    """

    def __init__(self, settings: ViSNetSettings) -> None:
        super().__init__(settings, settings.cutoff)
        channels, heads, layers, radial = (
            settings.channels,
            settings.heads,
            settings.layers,
            settings.radial,
        )
        self.embedding = AtomEmbedding(channels)
        self.basis = visnet.ExpNormalSmearing(settings.cutoff, radial, trainable=False)
        self.neighbours = Neighbours(
            channels, radial, settings.cutoff, max_z=ELEMENTS + 1
        )
        self.edges = visnet.EdgeEmbedding(radial, channels)
        self.layers = nn.ModuleList(
            visnet_layer(channels, heads, settings.cutoff, last=n == layers)
            for n in range(1, layers + 1)
        )
        self.norm = nn.LayerNorm(channels)
        half = max(channels // 2, 1)
        self.gates = nn.ModuleList(
            [Gated(channels, half, scalar_activation=True), Gated(half, 1)]
        )
        self.basis.cutoff_fn = self.neighbours.cutoff = EnvelopeModule(settings.cutoff)

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)  # (edges,) Å
        units = vectors / r.unsqueeze(-1)
        basis, edges = self.basis(r), graph.edge_index
        x = self.neighbours(graph.z, self.embedding(graph), edges, r, basis)
        v = x.new_zeros(x.shape[0], 3, x.shape[1])
        f = self.edges(edges, basis, x)
        for message in self.layers:
            dx, dv, df = message(x, v, edges, r_ij=r, f_ij=f, d_ij=units)
            x, v = x + dx, v + dv
            f = f if df is None else f + df
        x = self.norm(x)
        y = x
        for gate in self.gates:
            y, v = gate(y, v)
        return AtomOutput(y.squeeze(-1), x)


def visnet_layer(channels: int, heads: int, cutoff: float, last: bool) -> nn.Module:
    """Return a layer of messages that vanish beyond the cutoff."""
    layer = visnet.ViS_MP(heads, channels, cutoff, None, False, last_layer=last)
    layer.cutoff = EnvelopeModule(cutoff)
    layer.s_proj = nn.Linear(channels, 2 * channels, bias=False)
    out: nn.Module = layer
    return out
