"""Construction of networks from settings, and their energies and forces."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import Network, NetworkOutput
from alloop.models.pyg import remove_generated_sources
from alloop.models.settings import NetworkSettings, network_settings

__all__ = [
    "EvaluatedNetwork",
    "Network",
    "NetworkOutput",
    "build_network",
    "energy_and_forces",
    "energy_forces_virial",
]


class EvaluatedNetwork(NamedTuple):
    """The output of a network with forces.

    energies (frames,), forces (atoms, 3) per Å, descriptors (atoms, features).
    """

    energies: Tensor
    forces: Tensor
    descriptors: Tensor


def energy_and_forces(
    network: torch.nn.Module, graph: Graph, *, create_graph: bool = False
) -> EvaluatedNetwork:
    """Return energies and forces F = -dE/dR by autograd; descriptors are detached.

    With create_graph energies and forces can be differentiated again, as training on
    forces does. The graph given is not changed.
    """
    graph = copy.copy(graph)
    graph.pos = graph.pos.detach().requires_grad_()
    energies, descriptors = network(graph)
    (gradient,) = torch.autograd.grad(
        energies.sum(), graph.pos, create_graph=create_graph
    )
    if not create_graph:
        energies = energies.detach()
    return EvaluatedNetwork(energies, -gradient, descriptors.detach())


def energy_forces_virial(
    network: torch.nn.Module, graph: Graph, *, create_graph: bool = False
) -> tuple[EvaluatedNetwork, Tensor]:
    """Return `energy_and_forces`, and the virial dE/dstrain (frames, 3, 3)."""
    graph = copy.copy(graph)
    graph.pos = graph.pos.detach().requires_grad_()
    graph.shift = graph.shift.detach().requires_grad_()
    energies, descriptors = network(graph)
    gradient, edges = torch.autograd.grad(
        energies.sum(), (graph.pos, graph.shift), create_graph=create_graph
    )
    if not create_graph:
        energies = energies.detach()
    evaluated = EvaluatedNetwork(energies, -gradient, descriptors.detach())
    return evaluated, _virial(graph, edges)


def _virial(graph: Graph, derivatives: Tensor) -> Tensor:
    """Return dE/dstrain (frames, 3, 3) from derivatives by lattice shifts (edges, 3).

    One shift moves one edge, so that they are the derivatives by edge vectors too.
    """
    products = edge_vectors(graph).detach().unsqueeze(2) * derivatives.unsqueeze(1)
    owner = graph.batch.index_select(0, graph.edge_index[1])
    total = derivatives.new_zeros(graph.num_graphs, 3, 3)
    return total.index_add(0, owner, products)


def build_network(
    kind: str,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    *,
    pretrained: bool = True,
) -> Network:
    """Build a network; the same seed gives the same weights, whatever ran before.

    pretrained: whether a universal potential takes its weights from the package that
    has them. Raises InputError for an unknown kind or setting, and for a package that
    is missing.
    """
    record = network_settings(kind, settings)
    network_class: Callable[[NetworkSettings], Network] = record.network_class()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = network_class(record)
    if pretrained:
        network.load_pretrained()
    remove_generated_sources()
    return network.to(dtype)
