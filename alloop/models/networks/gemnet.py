"""GemNet-T: Gasteiger, Becker, Günnemann, NeurIPS 2021, Figure 2 without quadruplets.

Directed edges carry messages m (edges, F). A message learns from all that arrive at the
same atom, by distance and angle (triplets), and what it learns goes to both directions
of its edge. Forces are the gradient of the energy. GemNet-Q (dihedral angles) is not
implemented.

Two things differ from the paper. Sums are scaled by constants instead of factors fitted
to data: `_EDGES` and `_TRIPLETS` keep the variance of features near 1 in small organic
molecules when training begins. And the radial functions' frequencies are fixed. Angles
enter as polynomials of their cosine: forces are smooth for atoms in a line too.

Distances and angles are those of DimeNet (Gasteiger, Groß, Günnemann, ICLR 2020,
Eq. 6): j_l(z_ln r/c) P_l(cos α). Closed forms of j_l cancel at short distances, so each
function is written as a sum of cosines (l even) or sines (l odd), fitted once in
float64: two kernels and a matrix product then give them all, exactly smooth in every
type and bounded beyond the cutoff.

Scaled layers keep a feature's variance near 1 without biases or norms.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from alloop.core.units import Floats, Integers
from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import (
    AtomEmbedding,
    AtomOutput,
    BesselBasis,
    Envelope,
    Network,
    late_envelope,
)
from alloop.models.settings import GemNetSettings

WIDTH = 16  # features of a distance, made once for all blocks
HALF = math.sqrt(0.5)  # a sum of two keeps the variance of each
_EDGES = 1.1  # factor of a sum over the edges of an atom
_TRIPLETS = 7.0  # factor of a sum over the triplets of an edge
_SPARE = 8  # waves beyond those that resolve the fastest function
_PERIOD = 4.0  # of the slowest wave, in cutoffs: the range and its mirror, twice


def scaled_linear(inside: int, outside: int) -> nn.Linear:
    """Return a layer x W, W orthogonal, then of mean 0 and variance 1/inside."""
    layer = nn.Linear(inside, outside, bias=False)
    with torch.no_grad():
        W = nn.init.orthogonal_(layer.weight)
        variance, mean = torch.var_mean(W, dim=1, correction=0, keepdim=True)
        W.sub_(mean).div_(torch.sqrt(inside * (variance + 1e-6)))
    return layer


class Swish(nn.Module):
    """The activation SiLU(x)/0.6, which keeps the variance of a normal x."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) * (1.0 / 0.6)


def activated_linear(inside: int, outside: int) -> nn.Sequential:
    """Return a `scaled_linear` layer followed by `Swish`."""
    return nn.Sequential(scaled_linear(inside, outside), Swish())


class Residual(nn.Module):
    """The residual block (x + σ(σ(x W) W')) / √2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            activated_linear(width, width), activated_linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.inner(x)) * HALF
        return out


class IncomingEdges(NamedTuple):
    """Edges in rows of equal width, a row for each atom that they arrive at.

    slots (edges,): the place of each edge in the flat rows, None where the edges fill
    all of them in order, as in a batch of one molecule. back (edges,): the edge that
    runs the other way.
    """

    atoms: int
    width: int
    slots: Tensor | None
    back: Tensor

    def to_rows(self, x: Tensor) -> Tensor:
        """Convert (edges, F) to (atoms, width, F), zero where there is no edge."""
        if self.slots is not None:
            zero = x.new_zeros(self.atoms * self.width, x.shape[1])
            x = zero.index_copy(0, self.slots, x)
        return x.view(self.atoms, self.width, x.shape[1])

    def from_rows(self, x: Tensor) -> Tensor:
        """Convert (atoms, width, ...) to (edges, ...); the inverse of `to_rows`."""
        x = x.flatten(0, 1)
        return x if self.slots is None else x.index_select(0, self.slots)


def incoming_edges(graph: Graph) -> IncomingEdges:
    """Sort the edges of a graph, in which every edge comes both ways."""
    senders, receivers = graph.edge_index.cpu().numpy()
    shift = graph.shift.detach().cpu().numpy().T
    atoms = len(graph.z)
    degree = np.bincount(receivers, minlength=atoms)
    width = int(degree.max(initial=0))
    there = np.lexsort((*shift, senders, receivers))
    back = np.empty_like(there)
    back[np.lexsort((*-shift, receivers, senders))] = there
    places = _row_places(receivers, degree, width)
    full = np.array_equal(places, np.arange(atoms * width))
    device = graph.edge_index.device
    slots = None if full else torch.as_tensor(places, device=device)
    return IncomingEdges(atoms, width, slots, torch.as_tensor(back, device=device))


def _row_places(receivers: Integers, degree: Integers, width: int) -> Integers:
    """Return the place of each edge in rows of `width`, in the edges' order."""
    # The rank of an edge among those of its atom is its place in the sorted list less
    # that of the atom's first edge.
    order = np.argsort(receivers, kind="stable")
    first = np.cumsum(degree) - degree
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - first[receivers[order]]
    places: Integers = receivers * width + rank
    return places


class SphericalBessel(nn.Module):
    """The functions N_ln j_l(z_ln r/c), l < spherical, n = 1...radial.

    z_ln is the n-th root of j_l; N_ln makes ∫ r² f² dr over the cutoff c (Å) equal 1.
    """

    waves: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, spherical: int, radial: int, cutoff: float) -> None:
        super().__init__()
        self.shape = (spherical, radial)
        roots = bessel_roots(spherical, radial)
        waves = _wave_numbers(float(roots.max()))
        even, odd = _fitted_waves(roots, waves)
        self._constant("waves", waves / cutoff)  # 1/Å
        self._constant("cosines", even * cutoff**-1.5)
        self._constant("sines", odd * cutoff**-1.5)

    def forward(self, r: Tensor) -> Tensor:
        """Return the functions at r (edges,) in Å: (edges, spherical, radial)."""
        phase = r.unsqueeze(-1) * self.waves
        values = torch.cos(phase) @ self.cosines + torch.sin(phase) @ self.sines
        return values.view(len(r), *self.shape)

    def _constant(self, name: str, values: Floats) -> None:
        self.register_buffer(name, torch.from_numpy(values), persistent=False)


def legendre_polynomials(x: Tensor, degrees: int) -> list[Tensor]:
    """Return sqrt((2l + 1)/4π) P_l(x), l < degrees, smooth at x = ±1 too."""
    P = [torch.ones_like(x), x][:degrees]
    for k in range(2, degrees):  # Bonnet's recursion, without angles: no acos at x = ±1
        P.append(((2 * k - 1) * x * P[-1] - (k - 1) * P[-2]) / k)
    return [p * math.sqrt((2 * k + 1) / (4 * math.pi)) for k, p in enumerate(P)]


def bessel_roots(spherical: int, radial: int) -> Floats:
    """Return the first positive roots of j_0, j_1, ...: (spherical, radial).

    Between two roots of j_l lies one of j_(l+1).
    """
    roots = [math.pi * np.arange(1.0, spherical + radial)]
    for degree in range(1, spherical):
        ends = zip(roots[-1][:-1], roots[-1][1:], strict=True)
        # brentq brackets each root, so that none is missed or found twice
        row = [brentq(lambda z, k=degree: spherical_jn(k, z), *end) for end in ends]
        roots.append(np.array(row))
    return np.stack([row[:radial] for row in roots]).astype(np.float64)


def _wave_numbers(fastest: float) -> Floats:
    slowest = 2.0 * math.pi / _PERIOD
    count = math.ceil(fastest / slowest) + _SPARE
    return slowest * np.arange(count, dtype=np.float64)


def _fitted_waves(roots: Floats, waves: Floats) -> tuple[Floats, Floats]:
    """Return the coefficients of each wave for cosines and for sines.

    Both are (waves, spherical * radial).
    """
    spherical, radial = roots.shape
    x = 0.5 - 0.5 * np.cos(math.pi * np.arange(401) / 400)  # dense at both ends
    parity = np.repeat(np.arange(spherical) % 2, radial)
    degree = np.repeat(np.arange(spherical), radial)
    norm = math.sqrt(2.0) / np.abs(spherical_jn(degree + 1, roots.ravel()))
    target = norm * spherical_jn(degree, np.outer(x, roots.ravel()))
    phase = np.outer(x, waves)
    # The waves are overcomplete: singular values below rcond, whose coefficients would
    # be huge and cancel, are dropped.
    even = np.linalg.lstsq(np.cos(phase), target * (1 - parity), rcond=1e-12)[0]
    odd = np.linalg.lstsq(np.sin(phase), target * parity, rcond=1e-12)[0]
    return even, odd


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

    def __init__(self, spherical: int, radial: int, envelope: Envelope) -> None:
        super().__init__()
        self.envelope = envelope
        self.spherical = spherical
        self.bessel = BesselBasis(radial, envelope.cutoff)
        self.sphere = SphericalBessel(spherical, radial, envelope.cutoff)
        self.radial = nn.ModuleList(scaled_linear(radial, WIDTH) for _ in range(3))
        self.circle = nn.ModuleList(
            scaled_linear(radial, WIDTH) for _ in range(spherical)
        )

    def forward(self, graph: Graph) -> tuple[Tensor, GemNetEdges]:
        """Return radial functions (edges, radial), and the features for the blocks."""
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)  # (edges,) Å
        end = self.envelope(r).unsqueeze(-1)
        basis = self.bessel(r) * end
        rows = incoming_edges(graph)
        gates, atoms, outs = (layer(basis) for layer in self.radial)
        circles = self._circles(self.sphere(r) * end.unsqueeze(-1))
        angles = self._angles(rows.to_rows(vectors / r.unsqueeze(-1)))
        senders, receivers = graph.edge_index
        return basis, GemNetEdges(
            senders=senders,
            receivers=receivers,
            arrivals=rows,
            gates=gates,
            atoms=atoms,
            outs=outs,
            circles=circles,
            angles=angles,
        )

    def _circles(self, functions: Tensor) -> Tensor:
        """Convert (edges, spherical, radial) to (edges, 16, spherical)."""
        pairs = zip(self.circle, functions.unbind(dim=1), strict=True)
        return torch.stack([layer(f) for layer, f in pairs], dim=2)

    def _angles(self, units: Tensor) -> Tensor:
        """Convert directions (atoms, width, 3) to (atoms, width * spherical, width)."""
        cosines = units @ units.transpose(1, 2)
        others = 1.0 - torch.eye(units.shape[1], dtype=units.dtype, device=units.device)
        polynomials = torch.stack(legendre_polynomials(cosines, self.spherical), dim=2)
        return (polynomials * others.unsqueeze(1)).flatten(1, 2)  # no edge with itself


class EdgeUpdate(nn.Module):
    """The update σ(W (h_i, h_j, x_ij)); the atoms' part is computed once per atom."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.sizes = [channels, channels, inside]
        self.map = scaled_linear(sum(self.sizes), channels)
        self.inner = Swish()

    def forward(self, h: Tensor, x: Tensor, edges: GemNetEdges) -> Tensor:
        W_i, W_j, W = torch.split(self.map.weight, self.sizes, dim=1)
        received = (h @ W_i.T).index_select(0, edges.receivers)
        sent = (h @ W_j.T).index_select(0, edges.senders)
        out: Tensor = self.inner(torch.addmm(received + sent, x, W.T))
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
        messages = [m]
        for block in self.blocks:
            h, m = block(h, m, edges)
            messages.append(m)
        heads = zip(self.outs, self.energies, messages, strict=True)
        per_atom = sum(last(out(m, edges.outs, edges)) for out, last, m in heads)
        return AtomOutput(per_atom.squeeze(-1), h)
