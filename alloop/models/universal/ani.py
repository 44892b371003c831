"""ANI-1x, a universal potential of neutral molecules of H, C, N and O: eight members.

Smith, Isayev and Roitberg, Chemical Science 8, 3192 (2017), gives the network; Smith et
al., J. Chem. Phys. 148, 241733 (2018), the weights, trained on wB97X/6-31G*. They are
those that the package torchani 2.2.4 installs (MIT): its parameter files are read as
data, and none of its code is imported. Self energies of the atoms are left out.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from alloop.core.atoms import chemical_symbol
from alloop.core.errors import InputError
from alloop.core.units import HARTREE
from alloop.models.graph import Graph, bond_angles, edge_vectors, sum_frames
from alloop.models.layers import AtomOutput, Network
from alloop.models.settings import ANISettings
from alloop.models.universal.pretrained_files import package_file

MEMBERS = 8
ELEMENTS = (1, 6, 7, 8)
CUTOFF = 5.2  # Å
_NEAR = 3.5  # Å, of angles
_RADIAL = tuple(0.9 + k * (CUTOFF - 0.9) / 16 for k in range(16))  # Å
_SHELLS = tuple(0.9 + k * (_NEAR - 0.9) / 4 for k in range(4))  # Å
_TURNS = tuple((k + 0.5) * math.pi / 8 for k in range(8))  # radian
_SHARP, _WIDE = 16.0, 8.0  # 1/Å², of the radial functions and of the shells
_SMALLER = 0.95  # factor of the cosine, which keeps the sine off 0
_DOUBLINGS = 5  # the angular functions have the power 2**5
_PAIRS = len(ELEMENTS) * (len(ELEMENTS) + 1) // 2
_INPUTS = len(ELEMENTS) * len(_RADIAL) + _PAIRS * len(_SHELLS) * len(_TURNS)
_HIDDEN = {1: (160, 128, 96), 6: (144, 112, 96), 7: (128, 112, 96), 8: (128, 112, 96)}
_CELU = 0.1
_FROZEN = {"nothing": 0, "body": 2}  # the number of layers that do not change


class MemberLayer(nn.Module):
    """A linear layer of every member for every element; weight (members, in, out)."""

    def __init__(self, index: int, members: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        for z in ELEMENTS:
            inside, outside = layer_sizes(z, index)
            name = chemical_symbol(z)
            self.weights[name] = nn.Parameter(torch.zeros(members, inside, outside))
            self.biases[name] = nn.Parameter(torch.zeros(members, 1, outside))

    def forward(self, x: Tensor, element: str) -> Tensor:
        """Return (members, atoms, out) for x (members, atoms, in)."""
        return torch.baddbmm(self.biases[element], x, self.weights[element])


class ANI(Network):
    """The pretrained networks; energies in eV, the mean of eight.

    The 96 descriptors are the last hidden layer of the first member. member: 0 for all,
    or 1 to 8 for one of them. freeze: the part that training leaves unchanged,
    "nothing" or the "body" (the first two of four layers). It knows no charge and spin.
    """

    place: Tensor
    readout_names = ("layers.3.",)
    pair: Tensor
    radii: Tensor
    shells: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, settings: ANISettings) -> None:
        if settings.freeze not in _FROZEN or not 0 <= settings.member <= MEMBERS:
            raise InputError(
                f"expected freeze of ani to be {' or '.join(_FROZEN)} and member 0 to "
                f"{MEMBERS}, got {settings.freeze!r} and {settings.member}"
            )
        super().__init__(settings, CUTOFF)
        self.member = settings.member
        self.frozen = _FROZEN[settings.freeze]
        self.members = 1 if self.member else MEMBERS
        self.layers = nn.ModuleList(MemberLayer(k, self.members) for k in range(4))
        for name, values in (
            ("radii", _RADIAL),
            ("shells", _SHELLS),
            ("cosines", [math.cos(x) for x in _TURNS]),
            ("sines", [math.sin(x) for x in _TURNS]),
        ):
            grid = torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, grid, persistent=False)
        place = torch.zeros(max(ELEMENTS) + 1, dtype=torch.int64)
        place[list(ELEMENTS)] = torch.arange(len(ELEMENTS))
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("pair", _pair_numbers(), persistent=False)
        self.requires_grad_()

    def load_pretrained(self) -> None:
        """Take the weights of the installed package; InputError where it is missing."""
        chosen = slice(self.member - 1, self.member) if self.member else slice(None)
        state = {name: x[chosen] for name, x in _pretrained_state().items()}
        self.load_state_dict(state)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all weights but the frozen ones, which stay frozen."""
        super().requires_grad_(requires_grad)
        for layer in self.layers[: self.frozen]:
            layer.requires_grad_(False)
        return self

    def is_traceable(self, graph: Graph) -> bool:  # noqa: ARG002
        return False  # its shapes depend on the positions

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        energies, hidden = self._members(graph)
        return AtomOutput(energies.mean(0), hidden)

    def member_energies(self, graph: Graph) -> Tensor:
        """Return the energies of each member, (members, frames) in eV."""
        energies, _ = self._members(graph)
        return sum_frames(energies.T, graph).T

    def _members(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return energies (members, atoms) in eV, and descriptors (atoms, 96)."""
        element = self.place.index_select(0, graph.z)
        functions = self.symmetry_functions(graph, element)
        parts, hidden, order = [], [], []
        for index, z in enumerate(ELEMENTS):
            atoms = torch.nonzero(element == index).squeeze(-1)
            x = functions.index_select(0, atoms)
            x = x.expand(self.members, -1, -1)
            name = chemical_symbol(z)
            for layer in self.layers[:-1]:
                x = nn.functional.celu(layer(x, name), _CELU)
            parts.append(self.layers[-1](x, name).squeeze(-1))
            hidden.append(x[0])
            order.append(atoms)
        back = torch.argsort(torch.cat(order))
        energies = torch.cat(parts, dim=1).index_select(1, back)
        return energies * HARTREE, torch.cat(hidden).index_select(0, back)

    def symmetry_functions(self, graph: Graph, element: Tensor) -> Tensor:
        """Return the radial and angular functions of each atom, (atoms, 384).

        element (atoms,): the place of each atom's element in `ELEMENTS`.
        """
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)
        near = torch.nonzero(r.detach() < CUTOFF).squeeze(-1)
        sender, receiver = graph.edge_index[:, near]
        vectors, r = vectors[near], r[near]
        kind, count = element.index_select(0, sender), len(element)
        radial = _scattered(
            self._radial(r), receiver * len(ELEMENTS) + kind, count * len(ELEMENTS)
        )
        close = torch.nonzero(r.detach() < _NEAR).squeeze(-1)
        first, second = bond_angles(receiver[close])
        once = first < second
        first, second = close[first[once]], close[second[once]]
        terms = self._angular(vectors, r, first, second)
        place = receiver[first] * _PAIRS + self.pair[kind[first], kind[second]]
        angular = _scattered(terms, place, count * _PAIRS)
        return torch.cat([radial.view(count, -1), angular.view(count, -1)], dim=1)

    def _radial(self, r: Tensor) -> Tensor:
        """Return the radial functions of each edge, (edges, 16)."""
        column = r.unsqueeze(-1)
        bumps = torch.exp(-_SHARP * (column - self.radii) ** 2)
        return 0.25 * bumps * _cosine_cutoff(column, CUTOFF)

    def _angular(
        self, vectors: Tensor, r: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """Return the angular functions of each pair of edges, (pairs, 32)."""
        unit = vectors / r.unsqueeze(-1)
        cosine = _SMALLER * (unit[first] * unit[second]).sum(-1, keepdim=True)
        sine = torch.sqrt(1.0 - cosine * cosine)
        turns = 0.5 * (1.0 + cosine * self.cosines + sine * self.sines)
        for _ in range(_DOUBLINGS):
            turns = turns * turns
        mean = 0.5 * (r[first] + r[second]).unsqueeze(-1)
        shells = torch.exp(-_WIDE * (mean - self.shells) ** 2)
        ends = _cosine_cutoff(r, _NEAR)
        both = 2.0 * (ends[first] * ends[second]).unsqueeze(-1) * shells
        return (both.unsqueeze(-1) * turns.unsqueeze(-2)).flatten(1)


def layer_sizes(z: int, index: int) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a layer for an element."""
    sizes = (_INPUTS, *_HIDDEN[z], 1)
    return sizes[index], sizes[index + 1]


def _cosine_cutoff(r: Tensor, cutoff: float) -> Tensor:
    return 0.5 * torch.cos(r * (math.pi / cutoff)) + 0.5


def _scattered(terms: Tensor, place: Tensor, places: int) -> Tensor:
    """Return the sums of the rows that go to each place."""
    return terms.new_zeros(places, terms.shape[1]).index_add(0, place, terms)


def _pair_numbers() -> Tensor:
    """Return the number of each pair of elements, whichever comes first."""
    upper = torch.triu_indices(len(ELEMENTS), len(ELEMENTS))
    pair = torch.zeros(len(ELEMENTS), len(ELEMENTS), dtype=torch.int64)
    pair[upper[0], upper[1]] = torch.arange(_PAIRS)
    return torch.maximum(pair, pair.T)


@lru_cache
def _pretrained_state() -> dict[str, Tensor]:
    folder = package_file("torchani", "resources/ani-1x_8x", "ani")
    members = [folder / f"train{member}" / "networks" for member in range(MEMBERS)]
    state = {}
    for index in range(4):
        for z in ELEMENTS:
            name, (inside, outside) = chemical_symbol(z), layer_sizes(z, index)
            stem = f"ANN-{name}.nnf-l{index + 1}"
            shape = (outside, inside)
            weights = [_numbers(x / f"{stem}.wparam", shape).T for x in members]
            biases = [_numbers(x / f"{stem}.bparam", (1, outside)) for x in members]
            state[f"layers.{index}.weights.{name}"] = torch.stack(weights)
            state[f"layers.{index}.biases.{name}"] = torch.stack(biases)
    return state


def _numbers(file: Path, shape: tuple[int, int]) -> Tensor:
    """Return the float32 numbers of a parameter file."""
    try:
        values = np.fromfile(file, dtype="<f4").reshape(shape)
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected {math.prod(shape)} numbers in {file}, got another file; "
            "pip install 'alloop[ani]'"
        ) from error
    return torch.from_numpy(values.astype(np.float32))
