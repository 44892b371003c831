"""The common parts of the networks: a base class, envelopes, radial functions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph, sum_frames
from alloop.models.settings import BONDED, NetworkSettings

ELEMENTS = 100  # the heaviest atomic number that a network can embed


class NetworkOutput(NamedTuple):
    """The output of a network.

    energies (frames,) in the network's own unit; descriptors (atoms, features).
    """

    energies: Tensor
    descriptors: Tensor


class AtomOutput(NamedTuple):
    """The output of a network by atoms.

    energies (atoms,), which sum to those of the frames; descriptors (atoms, features);
    vectors (atoms, 3, features) that turn with the frame, None where there are none.
    """

    energies: Tensor
    descriptors: Tensor
    vectors: Tensor | None = None


class Network(nn.Module, ABC):
    """The base class of networks from a graph to energies and per-atom features.

    Energies must be smooth in `pos`. kind and settings, JSON values, build the network
    again (`alloop.models.network.build_network`); edges beyond `cutoff` (Å) must not
    matter. compiled_training: whether gradients of losses may be compiled.
    compiled_saving: CPU seconds that this saves a step on the smallest frames.
    readout_names: the beginnings of the names of the weights that turn features into
    energies, where the network is a universal potential.
    """

    compiled_training: ClassVar[bool] = True
    compiled_saving: ClassVar[float] = 7e-3  # PaiNN's
    readout_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: NetworkSettings, cutoff: float) -> None:
        super().__init__()
        self.kind = settings.kind
        self.settings: dict[str, Any] = settings.values
        self.cutoff = cutoff
        self.references: dict[int, float] = {}  # eV, that come with the weights

    def load_pretrained(self) -> None:
        """Take pretrained weights, where there are some and they are not there yet."""

    def is_traceable(self, graph: Graph) -> bool:  # noqa: ARG002
        """Return True if the shapes of its tensors depend on the graph's shapes alone.

        Only such a network is compiled.
        """
        return True

    @abstractmethod
    def atom_outputs(self, graph: Graph) -> AtomOutput:
        """Return energies and descriptors of the atoms of a graph."""

    def forward(self, graph: Graph) -> NetworkOutput:
        """Return energies and descriptors of a graph of `alloop.models.graph`."""
        atoms = self.atom_outputs(graph)
        return NetworkOutput(sum_frames(atoms.energies, graph), atoms.descriptors)


def cutoff_envelope(r: Tensor, cutoff: float) -> Tensor:
    """Return a factor that is 1 at r = 0 and 0 from the cutoff on.

    It has two continuous derivatives: (1 - x)^3 (1 + 3x + 6x²), x = r/cutoff, is the
    polynomial of DimeNet (Gasteiger et al., 2020, Eq. 8) for p = 3, factored so that it
    does not cancel near x = 1.
    """
    x = r / cutoff
    return torch.relu(1.0 - x) ** 3 * (1.0 + 3.0 * x + 6.0 * x**2)


def late_envelope(r: Tensor, cutoff: float) -> Tensor:
    """Return `cutoff_envelope` for p = 5, which stays near 1 for longer."""
    x = r / cutoff
    rest = 1.0 + x * (3.0 + x * (6.0 + x * (10.0 + x * 15.0)))
    return torch.relu(1.0 - x) ** 3 * rest


class Envelope(NamedTuple):
    """An envelope whose end may be moved after training, as a function of distance.

    shape: `cutoff_envelope` or `late_envelope`; cutoff: Å, that of the training;
    radius: Å, where the envelope ends. Where these differ, atoms closer than `BONDED`
    keep what was trained; from there on the trained envelope goes over to the one that
    ends at the radius, with two continuous derivatives.
    """

    shape: Callable[[Tensor, float], Tensor]
    cutoff: float
    radius: float

    def __call__(self, r: Tensor) -> Tensor:
        """Return the factors of distances r (edges,) in Å."""
        trained = self.shape(r, self.cutoff)
        if self.radius == self.cutoff:
            return trained
        span = min(self.cutoff, self.radius) - BONDED
        x = ((r - BONDED) / span).clamp(0.0, 1.0)
        moved = x**3 * (10.0 + x * (6.0 * x - 15.0))
        return torch.lerp(trained, self.shape(r, self.radius), moved)


class BesselBasis(nn.Module):
    """The functions sqrt(2/c) sin(n π r/c)/r, n = 1...radial (DimeNet, Eq. 7)."""

    n: Tensor

    def __init__(self, radial: int, cutoff: float) -> None:
        super().__init__()
        n = torch.arange(1.0, radial + 1.0)
        self.register_buffer("n", n, persistent=False)
        self.wave = math.pi / cutoff  # 1/Å
        self.norm = math.sqrt(2.0 / cutoff)

    def forward(self, r: Tensor) -> Tensor:
        """Return the functions at r (edges,) in Å: (edges, radial)."""
        # An edge joins two atoms or images, so that r is never 0.
        column = r.unsqueeze(-1)  # (edges, 1) Å
        return self.norm * torch.sin(self.wave * self.n * column) / column


class AtomEmbedding(nn.Module):
    """The embedding of each atom's element and its frame's charge and spin (2S).

    The linear map has no bias, so that neutral singlets depend on their elements only.
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
    """Return two linear layers with a SiLU between them."""
    return nn.Sequential(
        nn.Linear(inside, hidden), nn.SiLU(), nn.Linear(hidden, outside)
    )
