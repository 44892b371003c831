"""SevenNet, from a file that `alloop convert` made of a checkpoint.

Park et al., J. Chem. Theory Comput. 20, 4857 (2024): NequIP's architecture (Batzner et
al., Nat. Commun. 13, 2453, 2022), trained on crystals of 89 elements. A layer sums
products of the neighbours' features with spherical harmonics, adds a linear map of the
atom's own features, and ends in a gate. The network here has the function of sevenn
0.13.0's, on alloop's graphs, so that it runs in batches and without e3nn. The shifts of
the elements' energies that come with the weights are not part of it (`references`).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph
from alloop.models.layers import AtomOutput
from alloop.models.universal.converted_network import (
    ConvertedNetwork,
    Harmonics,
    near_edges,
)
from alloop.models.universal.equivariant import (
    Convolution,
    DegreeLinear,
    ElementLinear,
    Features,
    Gate,
    ScaledMLP,
    polynomial_envelope,
)


def _widths(irreps: Mapping[str, int]) -> dict[int, int]:
    """Return channels by degree, in order of degrees."""
    return {int(degree): int(irreps[degree]) for degree in sorted(irreps, key=int)}


class Radial(nn.Module):
    """Waves of the distance, which an envelope ends at the cutoff: (edges, radial)."""

    waves: Tensor

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        self.cutoff = float(model["cutoff"])
        self.envelope: dict[str, Any] = dict(model["envelope"])
        self.register_buffer("waves", torch.zeros(int(model["radial"])))

    def forward(self, r: Tensor) -> Tensor:
        column = r.unsqueeze(-1)
        basis = 2.0 / self.cutoff * (torch.sin(self.waves * column) / column)
        if self.envelope["kind"] == "xplor":
            envelope = xplor_envelope(r, float(self.envelope["start"]), self.cutoff)
        else:
            envelope = polynomial_envelope(r, self.cutoff, int(self.envelope["power"]))
        return basis * envelope.unsqueeze(-1)


def xplor_envelope(r: Tensor, start: float, cutoff: float) -> Tensor:
    """Return the switch of X-PLOR, 1 up to `start` (Å) and 0 from the cutoff on.

    Its first derivative is continuous, its second is not.
    """
    squares, low, high = r * r, start**2, cutoff**2
    rest = (high - squares).clamp(min=0.0)
    switch = rest**2 * (high + 2.0 * squares - 3.0 * low) / (high - low) ** 3
    return torch.where(r < start, torch.ones_like(switch), switch)


class Layer(nn.Module):
    """A convolution over neighbours beside a map of the atom's own features."""

    neighbours: Tensor

    def __init__(self, model: Mapping[str, Any], layer: Mapping[str, Any]) -> None:
        super().__init__()
        inside, outside = _widths(layer["inside"]), _widths(layer["outside"])
        gate_widths = {
            **outside,
            0: sum(outside.values()),
        }  # the gates among the scalars
        self.before = DegreeLinear({x: (n, n) for x, n in inside.items()})
        self.convolution = Convolution(layer["paths"], inside)
        sizes = self.convolution.sizes
        scale = float(model["activation"])
        self.radial = ScaledMLP(
            [int(model["radial"]), *layer["hidden"], sum(sizes)], scale
        )
        self.register_buffer("neighbours", torch.ones(1))
        sums = dict.fromkeys(gate_widths, 0)
        for (_, _, degree), size in zip(self.convolution.paths, sizes, strict=True):
            sums[degree] += size
        self.after = DegreeLinear({x: (sums[x], n) for x, n in gate_widths.items()})
        common = {x: (inside[x], n) for x, n in gate_widths.items() if x in inside}
        self.connection: DegreeLinear | ElementLinear = (
            ElementLinear(common, len(model["elements"]))
            if layer["connection"] == "elements"
            else DegreeLinear(common)
        )
        # of a network of several heads: what its head adds to scalars
        self.head_before = _head_row(layer["head_before"], inside[0])
        self.head_after = _head_row(layer["head_after"], gate_widths[0])
        self.gate = Gate(outside, (scale, scale), nn.functional.silu)

    def forward(
        self, x: Features, element: Tensor, edges: tuple[Tensor, Tensor, Features]
    ) -> Features:
        """Return features; edges: ends, radial functions and harmonics."""
        ends, basis, harmonics = edges
        if isinstance(self.connection, ElementLinear):
            connection = self.connection(x, element)
        else:
            connection = self.connection(x)
        x = _shifted(self.before(x), self.head_before)
        x = self.convolution(x, harmonics, self.radial(basis), ends)
        x = {degree: part / self.neighbours for degree, part in x.items()}
        x = _shifted(self.after(x), self.head_after)
        sums = {
            degree: part + connection[degree] if degree in connection else part
            for degree, part in x.items()
        }
        features: Features = self.gate(sums)
        return features


def _head_row(present: bool, width: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, width)) if present else None


def _shifted(x: Features, row: Tensor | None) -> Features:
    return x if row is None else {**x, 0: x[0] + row}


class SevenNet(ConvertedNetwork):
    """The network of a converted checkpoint; descriptors are the last scalars."""

    readout_names = ("readout.",)
    head_names = ("scale", "head_")

    def _build(self, model: Mapping[str, Any]) -> None:
        layers = model["layers"]
        elements, channels = len(model["elements"]), int(layers[0]["inside"]["0"])
        last, hidden = int(layers[-1]["outside"]["0"]), int(model["readout"])
        self.embedding = nn.Embedding(elements, channels)
        self.radial = Radial(model)
        self.harmonics = Harmonics(int(model["harmonics"]))
        self.unit_harmonics = bool(model["unit_harmonics"])
        self.layers = nn.ModuleList(Layer(model, layer) for layer in layers)
        self.readout = nn.ModuleList(
            DegreeLinear({0: sizes}) for sizes in ((last, hidden), (hidden, 1))
        )
        self.head_readout = _head_row(model["head_readout"], hidden)
        self.register_buffer("scale", torch.ones(1, elements))

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        element = self.rows.index_select(0, graph.z)
        ends, vectors, r = near_edges(graph, self.cutoff)
        harmonics = self.harmonics(vectors, r)
        if not self.unit_harmonics:
            harmonics = {
                x: part * r.unsqueeze(-1) ** x for x, part in harmonics.items()
            }
        edges = ends, self.radial(r), harmonics
        scalars = self.embedding(element) / math.sqrt(self.embedding.num_embeddings)
        x: Features = {0: scalars.unsqueeze(1)}
        for layer in self.layers:
            x = layer(x, element, edges)
        first, second = self.readout
        hidden = _shifted(first({0: x[0]}), self.head_readout)
        energies = second(hidden)[0].view(-1)
        scale = self.scale[0].index_select(0, element)
        return AtomOutput(scale * energies, x[0].squeeze(1))
