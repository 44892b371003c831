"""What the networks are made of: a common base, an envelope, radial functions."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph

ELEMENTS = 100  # the heaviest atomic number that a network can embed


class NetworkOutput(NamedTuple):
    """energies (frames,) in the network's own unit; descriptors (atoms, features)."""

    energies: Tensor
    descriptors: Tensor


class Network(nn.Module, ABC):
    """A graph in, energies and per-atom features out; energies must be smooth in `pos`.

    kind and settings build it again (`alloop.models.network.build`); edges beyond
    `cutoff` (Å) must not matter.
    """

    kind: ClassVar[str]
    settings: dict[str, Any]
    cutoff: float

    @abstractmethod
    def forward(self, graph: Graph) -> NetworkOutput:
        """Energies and descriptors of a graph (`alloop.models.graph.to_graph`)."""


def cutoff_envelope(r: Tensor, cutoff: float) -> Tensor:
    """1 at r = 0 and 0 from the cutoff on, with two continuous derivatives.

    (1 - x)^3 (1 + 3x + 6x²), x = r/cutoff: the polynomial of DimeNet (Gasteiger et al.,
    2020, Eq. 8) for p = 3, factored so that it does not cancel near x = 1.
    """
    x = r / cutoff
    return torch.relu(1.0 - x) ** 3 * (1.0 + 3.0 * x + 6.0 * x**2)


def late_envelope(r: Tensor, cutoff: float) -> Tensor:
    """The same polynomial for p = 5, which stays near 1 for longer."""
    x = r / cutoff
    rest = 1.0 + x * (3.0 + x * (6.0 + x * (10.0 + x * 15.0)))
    return torch.relu(1.0 - x) ** 3 * rest


class BesselBasis(nn.Module):
    """sqrt(2/c) sin(n π r/c)/r, n = 1...radial (DimeNet, Eq. 7), for r (edges,)."""

    n: Tensor

    def __init__(self, radial: int, cutoff: float) -> None:
        super().__init__()
        n = torch.arange(1.0, radial + 1.0)
        self.register_buffer("n", n, persistent=False)
        self.wave = math.pi / cutoff  # 1/Å
        self.norm = math.sqrt(2.0 / cutoff)

    def forward(self, r: Tensor) -> Tensor:
        """The functions at r (edges,) in Å: (edges, radial)."""
        column = r.unsqueeze(-1)  # (edges, 1) Å
        return self.norm * torch.sin(self.wave * self.n * column) / column


class AtomEmbedding(nn.Module):
    """Features of each atom from its element and its frame's charge and spin (2S).

    The linear map has no bias, so that neutral singlets see their elements only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.element = nn.Embedding(ELEMENTS + 1, channels)
        self.state = nn.Linear(2, channels, bias=False)

    def forward(self, graph: Graph) -> Tensor:
        state = self.state(torch.stack([graph.charge, graph.spin], dim=-1))
        out: Tensor = self.element(graph.z) + state.index_select(0, graph.batch)
        return out


def two_layer_mlp(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Two linear layers with a SiLU between them."""
    return nn.Sequential(
        nn.Linear(inside, hidden), nn.SiLU(), nn.Linear(hidden, outside)
    )
