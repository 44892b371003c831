"""The base class of universal potentials whose weights `alloop convert` made."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.models.checkpoint import understood
from alloop.models.graph import Graph, edge_vectors, to_graph
from alloop.models.layers import Network
from alloop.models.settings import ConvertedSettings
from alloop.models.universal.converted import chosen_head, read_converted
from alloop.models.universal.equivariant import Features
from alloop.models.universal.pretrained import require_choice
from alloop.models.universal.so3lr import Harmonics as SO3LRHarmonics

_FROZEN = ("nothing", "embeddings", "body")
_CROWDED = 40  # edges of an atom, above which those beyond the cutoff are left out


class ConvertedNetwork(Network):
    """A network described by a converted file; energies in eV.

    path: the file; head: the one of several heads, which names a data set; freeze: the
    part that training leaves unchanged: "nothing", "embeddings" (of elements, charge
    and spin), or the "body" (all but the last layer and the readouts).
    head_names: parts of the names of those tensors whose first axis counts heads;
    embedding_names: the modules that embed. Raises InputError where the file or the
    head is missing.
    """

    head_names: ClassVar[tuple[str, ...]]
    embedding_names: ClassVar[tuple[str, ...]] = ("embedding",)
    layers: nn.ModuleList
    rows: Tensor
    scale: Tensor

    def __init__(self, settings: ConvertedSettings) -> None:
        require_choice(settings.kind, "freeze", settings.freeze, _FROZEN)
        model = settings.description()
        head = chosen_head(model, settings.head)
        with understood():
            self._number = model["heads"].index(head)
            model = one_head(model, head)
            super().__init__(settings, float(model["cutoff"]))
            self.register_buffer("rows", torch.zeros(119, dtype=torch.int64), False)
            self.rows[torch.tensor(model["elements"])] = torch.arange(
                len(model["elements"])
            )
            self._build(model)
            energies = zip(model["elements"], model["references"][head], strict=True)
            self.references = dict(energies)
        self.settings = replace(
            settings, path="", identity="", licence="", head=head, model=model
        ).values
        self._file, self.freeze = settings.path, settings.freeze
        hooked: Any = self
        hooked.register_load_state_dict_post_hook(_try_network)
        self.requires_grad_()

    @abstractmethod
    def _build(self, model: Mapping[str, Any]) -> None:
        """Make the layers, with weights of zero."""

    def load_pretrained(self) -> None:
        """Take the weights of the converted file, in float64; not without a path."""
        if not self._file:
            return
        tensors = read_converted(self._file, kind=self.kind).tensors
        head = slice(self._number, self._number + 1)
        self.double()
        with understood():
            state = {
                name: torch.from_numpy((x[head] if self._has_heads(name) else x).copy())
                for name, x in tensors.items()
            }
            self.load_state_dict(state)

    def _has_heads(self, name: str) -> bool:
        return any(part in name for part in self.head_names)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all weights but the frozen ones, which stay frozen."""
        super().requires_grad_(requires_grad)
        if self.freeze == "nothing":
            return self
        for name in self.embedding_names:
            part = getattr(self, name)
            if part is not None:
                part.requires_grad_(False)
        if self.freeze == "body":
            for layer in self.layers[:-1]:
                layer.requires_grad_(False)
        return self

    def is_traceable(self, graph: Graph) -> bool:
        return not _has_many_edges(graph)


class Harmonics(nn.Module):
    """Spherical harmonics up to a degree as e3nn has them: squares sum to 2l + 1."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.real = SO3LRHarmonics()

    def forward(self, vectors: Tensor, r: Tensor) -> Features:
        """Return harmonics (edges, 2l + 1) by degree of vectors of length r (edges,).

        e3nn's axes are y, z, x where those of `SO3LRHarmonics` are x, y, z.
        """
        unit = vectors[:, [2, 0, 1]] / r.unsqueeze(-1)
        components = self.real(unit) * math.sqrt(4.0 * math.pi)
        out: Features = {0: torch.ones_like(unit[:, :1])}
        for degree in range(1, self.degree + 1):
            out[degree] = components[:, degree**2 - 1 : (degree + 1) ** 2 - 1]
        return out


def near_edges(graph: Graph, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ends (2, edges), vectors (edges, 3) and lengths of a graph's edges.

    Vectors point from receiver to sender. Where there are many, those beyond the cutoff
    are left out; else all stay, so that no shape depends on positions.
    """
    vectors = edge_vectors(graph)
    r = torch.linalg.vector_norm(vectors, dim=-1)
    ends = graph.edge_index
    if not _has_many_edges(graph):
        return ends, vectors, r
    near = torch.nonzero(r.detach() < cutoff).squeeze(-1)
    return ends[:, near], vectors[near], r[near]


def _has_many_edges(graph: Graph) -> bool:
    edges: int = graph.edge_index.shape[1]
    atoms: int = graph.z.shape[0]
    return edges > _CROWDED * atoms


@torch.no_grad()
def _try_network(network: Any, _: Any) -> None:
    """Run the network once, since a description may fit no features."""
    element = next(iter(network.references))
    pair = Frame(np.full(2, element), np.eye(3)[:2])
    graph = to_graph(
        pack_frames([pair]), network.cutoff, network.scale.dtype, network.scale.device
    )
    network.atom_outputs(graph)


def one_head(model: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Return the description of a network with one of its heads."""
    references = {head: model["references"][head]}
    return {**model, "heads": [head], "references": references}
