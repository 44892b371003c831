"""GemNet-T: Gasteiger, Becker, Günnemann, NeurIPS 2021, Figure 2 without quadruplets.

Directed edges carry messages m (edges, F). A message learns from all that arrive at the
same atom, by distance and angle (triplets), and what it learns goes to both directions
of its edge. Forces are the gradient of the energy. GemNet-Q (dihedral angles) is not
implemented.

Two things differ from the paper. Sums are scaled by constants instead of factors fitted
to data: `_EDGES` and `_TRIPLETS` keep the variance of features near 1 in small organic
molecules when training begins. And the radial functions' frequencies are fixed. Angles
enter as polynomials of their cosine: forces are smooth for atoms in a line too.
"""

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph
from alloop.models.layers import (
    AtomEmbedding,
    AtomOutput,
    Envelope,
    Network,
    late_envelope,
)
from alloop.models.networks.gemnet_layers import (
    HALF,
    WIDTH,
    GemNetEdges,
    GemNetFeatures,
    Residual,
    Swish,
    activated_linear,
    scaled_linear,
)
from alloop.models.settings import GemNetSettings

_EDGES = 1.1
_TRIPLETS = 7.0


class EdgeUpdate(nn.Module):
    """The update σ(W (h_i, h_j, x_ij)); the atoms' part is computed once per atom."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.sizes = [channels, channels, inside]
        self.map = scaled_linear(sum(self.sizes), channels)
        self.inner = Swish()

    def forward(self, h: Tensor, x: Tensor, edges: GemNetEdges) -> Tensor:
        W_i, W_j, W = torch.split(self.map.weight, self.sizes, dim=1)
        own = (h @ W_i.T).index_select(0, edges.receivers)
        other = (h @ W_j.T).index_select(0, edges.senders)
        out: Tensor = self.inner(torch.addmm(own + other, x, W.T))
        return out


class AtomUpdate(nn.Module):
    """The atom update: an MLP of Σ_j m_ij W(r_ij)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = scaled_linear(WIDTH, channels)
        self.inner = nn.Sequential(
            activated_linear(channels, channels), Residual(channels), Residual(channels)
        )

    def forward(self, m: Tensor, basis: Tensor, edges: GemNetEdges) -> Tensor:
        zero = m.new_zeros(edges.arrivals.atoms, m.shape[1])
        sums = zero.index_add(0, edges.receivers, m * self.gate(basis))
        out: Tensor = self.inner(sums * _EDGES)
        return out


class Triplets(nn.Module):
    """The triplet update: Σ_k over the edges that arrive at the same atom.

    It uses the efficient bilinear layer (Eqs. 8 and 9 for triplets): angles are summed
    over before weights are applied.
    """

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.before = activated_linear(channels, channels)
        self.gate = scaled_linear(WIDTH, channels)
        self.down = activated_linear(channels, narrow)
        self.bilinear = scaled_linear(WIDTH * narrow, narrow)
        self.there = activated_linear(narrow, channels)
        self.back = activated_linear(narrow, channels)

    def forward(self, m: Tensor, edges: GemNetEdges) -> Tensor:
        rows, sent = edges.arrivals, self.before(m) * self.gate(edges.gates)
        around = edges.angles @ rows.to_rows(self.down(sent))
        shape = (rows.atoms, rows.width, edges.circles.shape[2], around.shape[2])
        around = rows.from_rows(around.view(shape))  # (edges, spherical, narrow)
        both = edges.circles @ around  # (edges, 16, narrow)
        x = self.bilinear(both.flatten(1)) * _TRIPLETS
        back = self.back(x).index_select(0, rows.back)
        out: Tensor = (self.there(x) + back) * HALF
        return out


class Block(nn.Module):
    """A block: messages by triplets, atoms by messages, then messages by atoms."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.skip = activated_linear(channels, channels)
        self.triplets = Triplets(channels, narrow)
        self.before, self.after = Residual(channels), Residual(channels)
        self.atoms = AtomUpdate(channels)
        self.edges = EdgeUpdate(channels, channels)
        self.last = Residual(channels)

    def forward(
        self, h: Tensor, m: Tensor, edges: GemNetEdges
    ) -> tuple[Tensor, Tensor]:
        x = (self.skip(m) + self.triplets(m, edges)) * HALF
        m = self.after((m + self.before(x)) * HALF)
        h = (h + self.atoms(m, edges.atoms, edges)) * HALF
        m = (m + self.last(self.edges(h, m, edges))) * HALF
        return h, m


class GemNet(Network):
    """The GemNet-T network: energies are sums over atoms and blocks.

    Descriptors are the last h. channels is the width of atoms and messages, narrow that
    of triplets, layers the number of blocks, spherical and radial those of the angular
    and radial functions, cutoff in Å. The paper has channels 128, narrow 64, layers 4.
    """

    def __init__(self, settings: GemNetSettings) -> None:
        radius = settings.radius or settings.cutoff
        super().__init__(settings, radius)
        channels, layers, radial = settings.channels, settings.layers, settings.radial
        self.elements = AtomEmbedding(channels)
        end = Envelope(late_envelope, settings.cutoff, radius)
        self.geometry = GemNetFeatures(settings.spherical, radial, end)
        self.start = EdgeUpdate(channels, radial)
        self.blocks = nn.ModuleList(
            Block(channels, settings.narrow) for _ in range(layers)
        )
        self.outs = nn.ModuleList(AtomUpdate(channels) for _ in range(layers + 1))
        self.energies = nn.ModuleList(
            scaled_linear(channels, 1) for _ in range(layers + 1)
        )

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        basis, edges = self.geometry(graph)
        h = self.elements(graph)
        m = self.start(h, basis, edges)
        found = [m]
        for block in self.blocks:
            h, m = block(h, m, edges)
            found.append(m)
        heads = zip(self.outs, self.energies, found, strict=True)
        per_atom = sum(last(out(m, edges.outs, edges)) for out, last, m in heads)
        return AtomOutput(per_atom.squeeze(-1), h)
