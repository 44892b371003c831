"""MACE, from a file that `alloop convert` made of the user's own.

Batatia et al., NeurIPS 2022 (arXiv 2206.07697), and Batatia et al., "A foundation model
for atomistic materials chemistry", arXiv 2401.00096. A layer sums products of the
neighbours' features with spherical harmonics, and takes symmetric products of up to
three such sums of an atom. The network here has the function of mace-torch 0.3.16's
`ScaleShiftMACE`, whose Clebsch-Gordan coefficients come with the file; graphs are
alloop's, so that it runs in batches, without e3nn, and as compiled code. The energies
of free atoms that come with the weights are not part of it (`references`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ase.data import covalent_radii
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
    SymmetricContraction,
    normed_mlp,
    polynomial_envelope,
)

_AGNESI = (0.9183, 4.5791, 1.0805)  # q, p and a of the transformed distance
_SOFT = 4.0  # steepness of the other transformed distance
_SCREENING = (0.1818, 0.5099, 0.2802, 0.02817)  # of the universal repulsion (ZBL)
_DECAYS = (3.2, 0.9423, 0.4028, 0.2016)


class _Edges(NamedTuple):
    """The edges that exchange messages.

    ends (2, edges): sender and receiver; basis (edges, radial functions); envelope
    (edges, 1), None where the basis contains it; harmonics (edges, 2l + 1) by degree.
    """

    ends: Tensor
    basis: Tensor
    envelope: Tensor | None
    harmonics: Features


class _Ends(NamedTuple):
    """Atomic numbers, as floats, and covalent radii (Å) of both ends, (edges,) each."""

    numbers: tuple[Tensor, Tensor]
    radii: tuple[Tensor, Tensor]


class Interaction(nn.Module):
    """The messages of one layer, and what of the atom's own features is kept."""

    def __init__(self, model: Mapping[str, Any], layer: Mapping[str, Any]) -> None:
        super().__init__()
        self.block: str = layer["block"]
        self.neighbours: float = layer["neighbours"]
        self.target = list(map(int, layer["target"]))
        elements, wide = len(model["elements"]), int(layer["edge_channels"])
        channels, inner = int(model["channels"]), list(map(int, layer["inside"]))
        self.up = DegreeLinear({x: (channels, wide) for x in inner})
        self.convolution = Convolution(layer["paths"], dict.fromkeys(inner, wide))
        paths = self.convolution.paths
        slots = {x: sum(c == x for _, _, c in paths) for x in self.target}
        sizes = [int(model["radial"]), *layer["hidden"], sum(self.convolution.sizes)]
        scale = float(model["activation"])
        outside = [x for x in layer["outside"] if x in inner]
        if self.block == "nonlinear":
            self._build_nonlinear(layer, slots, sizes)
            self.skip: nn.Module = DegreeLinear(
                {x: (channels, channels) for x in outside}
            )
            return
        self.radial: nn.Module = ScaledMLP(sizes, scale)
        self.mix = DegreeLinear({x: (slots[x] * wide, channels) for x in self.target})
        kept = outside if "residual" in self.block else self.target
        self.skip = ElementLinear({x: (channels, channels) for x in kept}, elements)
        if "density" in self.block:
            self.density: nn.Module = ScaledMLP([sizes[0], 1], scale)

    def _build_nonlinear(
        self, layer: Mapping[str, Any], slots: Mapping[int, int], sizes: list[int]
    ) -> None:
        channels, wide = int(layer["channels"]), int(layer["edge_channels"])
        elements = int(layer["elements"])
        both = sizes[0] + 2 * channels
        self.source = nn.Embedding(elements, channels)
        self.sink = nn.Embedding(elements, channels)
        self.radial = normed_mlp([both, *sizes[1:]])
        self.density = normed_mlp([both, 64, 1])
        gated = {x: channels for x in self.target}
        gated[0] = channels * len(self.target)  # the gates of the others among them
        self.residual = DegreeLinear({x: (wide, gated[x]) for x in self.up.degrees})
        self.mix = DegreeLinear({x: (slots[x] * wide, gated[x]) for x in self.target})
        widths = dict.fromkeys(self.target, channels)
        self.gate = Gate(widths, layer["gates"])
        self.last = DegreeLinear({x: (channels, channels) for x in self.target})
        self.alpha = nn.Parameter(torch.tensor(20.0))
        self.beta = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, x: Features, element: Tensor, edges: _Edges
    ) -> tuple[Features, Features]:
        """Return messages, and features to add to the product; none is empty."""
        up = self.up(x)
        basis = edges.basis
        if self.block == "nonlinear":
            basis = self._with_elements(basis, element, edges.ends)
        weights = self.radial(basis)
        if edges.envelope is not None:
            weights = weights * edges.envelope
        sums = self.convolution(up, edges.harmonics, weights, edges.ends)
        messages = self._divided(self.mix(sums), basis, edges, len(element))
        if self.block == "nonlinear":
            rest = self.residual(up)
            messages = {
                degree: part + rest[degree] if degree in rest else part
                for degree, part in messages.items()
            }
            return self.last(self.gate(messages)), self.skip(x)
        if "residual" in self.block:
            return messages, self.skip(x, element)
        return self.skip(messages, element), {}

    def _with_elements(self, basis: Tensor, element: Tensor, ends: Tensor) -> Tensor:
        scale = 1.0 / math.sqrt(self.source.num_embeddings)
        there = self.source(element.index_select(0, ends[0])) * scale
        here = self.sink(element.index_select(0, ends[1])) * scale
        return torch.cat([basis, there, here], dim=-1)

    def _divided(
        self, messages: Features, basis: Tensor, edges: _Edges, atoms: int
    ) -> Features:
        if self.block != "nonlinear" and "density" not in self.block:
            return {degree: x / self.neighbours for degree, x in messages.items()}
        density = torch.tanh(self.density(basis) ** 2)
        if edges.envelope is not None:
            density = density * edges.envelope
        none = density.new_zeros(atoms, 1)
        around = none.index_add(0, edges.ends[1], density).unsqueeze(-1)
        if self.block == "nonlinear":
            around = around * self.beta + self.alpha
        else:
            around = around + 1.0
        return {degree: x / around for degree, x in messages.items()}


class Layer(nn.Module):
    """An interaction, and the symmetric products of its messages."""

    def __init__(self, model: Mapping[str, Any], layer: Mapping[str, Any]) -> None:
        super().__init__()
        channels, degrees = int(model["channels"]), list(map(int, layer["outside"]))
        self.alike = bool(layer["alike"])  # one product for all elements
        self.interaction = Interaction(model, layer)
        self.product = SymmetricContraction(layer["terms"])
        self.mix = DegreeLinear({degree: (channels, channels) for degree in degrees})

    def forward(self, x: Features, element: Tensor, edges: _Edges) -> Features:
        messages, own = self.interaction(x, element, edges)
        kind = torch.zeros_like(element) if self.alike else element
        products = self.mix(self.product(messages, kind))
        return {
            degree: part + own[degree] if degree in own else part
            for degree, part in products.items()
        }


class Readout(nn.Module):
    """Energies of one head from scalars: linear, or with one or two hidden layers.

    heads: the number that the network was trained with, which counts as inputs.
    """

    def __init__(
        self, kind: str, channels: int, width: int, heads: int, scale: float
    ) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.norm = 1.0 / math.sqrt(heads * width) if width else 1.0
        self.first = nn.Parameter(torch.zeros(1, channels, width or 1))
        if width:
            self.second = nn.Parameter(torch.zeros(1, width))
        if kind == "biased":
            self.middle = nn.Parameter(torch.zeros(1, width, width))
            self.middle_bias = nn.Parameter(torch.zeros(1, width))
            self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return energies (atoms,) of scalars (atoms, channels)."""
        y = x @ (self.first[0] / math.sqrt(self.first.shape[1]))
        if self.kind == "linear":
            return y.squeeze(-1)
        y = nn.functional.silu(y) * self.scale
        if self.kind == "biased":
            y = y @ (self.middle[0] * self.norm) + self.middle_bias
            y = nn.functional.silu(y) * self.scale
            return (y * (self.second[0] * self.norm)).sum(-1) + self.bias
        return (y * (self.second[0] * self.norm)).sum(-1)


class StateEmbedding(nn.Module):
    """The embedding of a frame's total charge and spin multiplicity.

    specs: by `total_charge` and `total_spin` the kind (`classes` with an offset, or
    `number`), and the width.
    """

    def __init__(self, specs: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        self.specs = {name: dict(specs[name]) for name in sorted(specs)}
        self.parts = nn.ModuleDict(
            {name: _state_part(spec) for name, spec in self.specs.items()}
        )
        self.names = list(specs)  # in the order in which they stand side by side
        total = sum(int(spec["width"]) for spec in specs.values())
        self.project = nn.Linear(total, channels, bias=False)

    def forward(self, graph: Graph) -> Tensor:
        states = {"total_charge": graph.charge, "total_spin": graph.spin + 1.0}
        rows = []
        for name in self.names:
            spec, state = self.specs[name], states[name]
            if spec["kind"] == "classes":
                row = self.parts[name]((state + spec["offset"]).to(torch.int64))
            else:
                row = self.parts[name](state.unsqueeze(-1))
            rows.append(row)
        frames = nn.functional.silu(self.project(torch.cat(rows, dim=-1)))
        return frames.index_select(0, graph.batch)


def _state_part(spec: Mapping[str, Any]) -> nn.Module:
    width = int(spec["width"])
    if spec["kind"] == "classes":
        return nn.Embedding(int(spec["classes"]), width)
    bias = bool(spec["bias"])
    return nn.Sequential(
        nn.Linear(1, width, bias=bias), nn.SiLU(), nn.Linear(width, width, bias=bias)
    )


class Radial(nn.Module):
    """Radial functions of distances and elements, and their envelope.

    The distances may be transformed first, by the elements' covalent radii.
    """

    waves: Tensor

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        self.cutoff, self.power = float(model["cutoff"]), int(model["envelope"])
        self.transform: str = model["transform"]
        self.inside = bool(model["envelope_in_basis"])
        self.register_buffer("waves", torch.zeros(int(model["radial"])))

    def forward(self, r: Tensor, ends: _Ends) -> tuple[Tensor, Tensor | None]:
        """Return functions (edges, radial) of r (edges,), and the envelope (edges, 1).

        The envelope is None where the functions contain it.
        """
        envelope = polynomial_envelope(r, self.cutoff, self.power).unsqueeze(-1)
        column = self._transformed(r, ends).unsqueeze(-1)
        basis = math.sqrt(2.0 / self.cutoff) * (torch.sin(self.waves * column) / column)
        return (basis * envelope, None) if self.inside else (basis, envelope)

    def _transformed(self, r: Tensor, ends: _Ends) -> Tensor:
        if self.transform == "none":
            return r
        bond = ends.radii[0] + ends.radii[1]
        if self.transform == "agnesi":
            q, p, a = _AGNESI
            x = r / (0.5 * bond)
            return 1.0 / (1.0 + a * x**q / (1.0 + x ** (q - p)))
        low, high = 0.75 * bond, 4.0 / 3.0 * bond
        x = _SOFT / (high - low) * (r - 0.5 * (low + high))
        return low + (r - low) * (0.5 * (1.0 + torch.tanh(x)))


class Repulsion(nn.Module):
    """The repulsion of nuclei at short distances (Ziegler, Biersack, Littmark)."""

    shape: Tensor

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("shape", torch.zeros(2))  # exponent and length, 0.529 Å

    def forward(self, r: Tensor, ends: _Ends) -> Tensor:
        """Return half of the energy of each edge (edges,) in eV."""
        a, b = ends.numbers
        exponent, length = self.shape.unbind()
        x = r / (length * 0.529 / (a**exponent + b**exponent))
        screened = sum(
            factor * torch.exp(-decay * x)
            for factor, decay in zip(_SCREENING, _DECAYS, strict=True)
        )
        reach = ends.radii[0] + ends.radii[1]
        envelope = polynomial_envelope(r, reach, self.power)
        return 0.5 * 14.3996 * a * b / r * screened * envelope


class MACE(ConvertedNetwork):
    """The network of a converted file of mace-torch; descriptors are all scalars."""

    readout_names = ("readouts.", "first_readout.")
    head_names = (*readout_names, "scale", "shift")
    embedding_names = ("embedding", "state", "first_readout")
    table: Tensor
    shift: Tensor

    def _build(self, model: Mapping[str, Any]) -> None:
        channels, elements = int(model["channels"]), len(model["elements"])
        facts = [[float(z), float(covalent_radii[z])] for z in model["elements"]]
        table = torch.tensor(facts, dtype=torch.float64)
        self.register_buffer("table", table, persistent=False)
        self.embedding = nn.Embedding(elements, channels)
        self.state: nn.Module | None = None
        self.first_readout: Readout | None = None
        if model["states"]:
            self.state = StateEmbedding(model["states"], channels)
        count, scale = int(model["head_count"]), float(model["activation"])
        if model["embedding_readout"]:
            self.first_readout = Readout("linear", channels, 0, count, scale)
        self.radial = Radial(model)
        self.harmonics = Harmonics(int(model["harmonics"]))
        self.repulsion = Repulsion(int(model["zbl"])) if model["zbl"] else None
        self.layers = nn.ModuleList(Layer(model, layer) for layer in model["layers"])
        self.sources = [int(readout["layer"]) for readout in model["readouts"]]
        self.readouts = nn.ModuleList(
            Readout(x["kind"], channels, int(x["width"]), count, scale)
            for x in model["readouts"]
        )
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("shift", torch.zeros(1))

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        element = self.rows.index_select(0, graph.z)
        ends, r, edges = self._edges(graph)
        scalars = self.embedding(element) / math.sqrt(self.embedding.num_embeddings)
        if self.state is not None:
            scalars = scalars + self.state(graph)
        before = self.first_readout(scalars) if self.first_readout is not None else None
        x: Features = {0: scalars.unsqueeze(1)}
        invariants = []
        for layer in self.layers:
            x = layer(x, element, edges)
            invariants.append(x[0].squeeze(1))
        energies = self._readout_energies(invariants)
        if self.repulsion is not None:
            pairs = self.repulsion(r, ends)
            energies = energies.index_add(0, edges.ends[1], pairs)
        energies = self.scale * energies + self.shift
        if before is not None:
            energies = energies + before
        return AtomOutput(energies, torch.cat(invariants, dim=-1))

    def _readout_energies(self, invariants: Sequence[Tensor]) -> Tensor:
        parts = [
            readout(invariants[source])
            for source, readout in zip(self.sources, self.readouts, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def _edges(self, graph: Graph) -> tuple[_Ends, Tensor, _Edges]:
        """Return the ends, the lengths and the edges."""
        ends, vectors, r = near_edges(graph, self.cutoff)
        atoms = self._ends(graph.z, ends)
        basis, envelope = self.radial(r, atoms)
        harmonics = self.harmonics(-vectors, r)  # from sender to receiver, as MACE's
        return atoms, r, _Edges(ends, basis, envelope, harmonics)

    def _ends(self, z: Tensor, ends: Tensor) -> _Ends:
        """Return numbers and radii of the ends (2, edges).

        A product with one-hot rows takes them by atom first: inductor gathers what it
        has gathered at other indices in C++ that does not compile.
        """
        element = self.rows.index_select(0, z).unsqueeze(1)
        places = torch.arange(len(self.table), device=z.device)
        atoms = (element == places).to(self.table.dtype) @ self.table
        a, b = (atoms.index_select(0, end) for end in ends)
        return _Ends((a[:, 0], b[:, 0]), (a[:, 1], b[:, 1]))
