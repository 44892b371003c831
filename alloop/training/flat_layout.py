"""Network, batch and labels of a training step as one flat list of tensors.

Loss and gradients of such a list are a pure function, which can be traced as one graph
of plain operations. Weights, positions, labels and random numbers are its inputs, so
that one traced program serves all steps, stages and generations of a network.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from alloop.models.compilation import Code
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.models.pyg import Data
from alloop.training.losses import Drawn, Objective, Targets, loss_gradient

_KEPT = 8  # programs of a kind that a process keeps


@dataclass(frozen=True, slots=True, eq=False)
class FlatLayout:
    """The order of a step's tensors in one flat list."""

    network: Network
    objective: Objective
    free: tuple[str, ...]
    fixed: tuple[str, ...]
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    constants: dict[str, Any]
    own: tuple[Tensor, ...]  # the network's, sharing memory: training changes them

    def flat(self, graph: Graph, target: Targets, drawn: Drawn) -> list[Tensor]:
        """Return the tensors of network, graph and targets, and what was drawn."""
        given = (graph[name] for name in self.fields)
        labels = (getattr(target, name) for name in self.labels)
        return [*self.own, *given, *labels, *drawn]

    def gradient(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Return loss and gradients for a flat list; this method is traced."""
        rest = iter(flat)
        free = {name: next(rest).detach().requires_grad_() for name in self.free}
        fixed = {name: next(rest) for name in self.fixed}
        graph = Data(**{name: next(rest) for name in self.fields})
        for name, value in self.constants.items():
            setattr(graph, name, value)
        target = Targets(**{name: next(rest) for name in self.labels})
        module = _LossModule(self.network, self.objective)
        state = {f"network.{name}": tensor for name, tensor in (free | fixed).items()}
        loss = torch.func.functional_call(module, state, (graph, target, tuple(rest)))
        found = loss_gradient(loss, list(free.values()))
        return (found.loss, *found.gradients)


class _LossModule(nn.Module):
    def __init__(self, network: Network, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, graph: Graph, target: Targets, drawn: Drawn) -> Tensor:
        return self.objective(self.network, graph, target, drawn)


def _network_state(network: Network) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def flat_layout(
    network: Network, objective: Objective, graph: Graph, target: Targets
) -> FlatLayout:
    """Return the layout of a network's steps on batches like this one."""
    state = _network_state(network)
    free = [name for name, tensor in state.items() if tensor.requires_grad]
    fixed = [name for name in state if name not in free]
    given = graph.to_dict()
    return FlatLayout(
        network=network,
        objective=objective,
        free=tuple(free),
        fixed=tuple(fixed),
        fields=tuple(k for k, v in given.items() if isinstance(v, Tensor)),
        labels=tuple(
            x.name for x in fields(Targets) if getattr(target, x.name) is not None
        ),
        constants={k: v for k, v in given.items() if not isinstance(v, Tensor)},
        own=tuple(state[name].detach() for name in (*free, *fixed)),
    )


def program_key(
    layout: FlatLayout, flat: Sequence[Tensor], graph: Graph, general: bool
) -> Hashable:
    """Return all that a traced program depends on and that is not an input of it.

    A network may read the neighbour list while it is traced for one molecule.
    """
    network, objective = layout.network, layout.objective
    inputs = (*layout.own, *layout.fields, *layout.labels)
    drawn = len(flat) > len(inputs)  # otherwise its weights are constants
    return (
        type(network),
        json.dumps(network.settings, sort_keys=True),
        objective.program if drawn else objective,
        (layout.free, layout.fields, layout.labels),
        tuple(layout.constants.items()),
        tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in flat),
        "any" if general else _graph_topology(graph),
    )


def kept_program(
    programs: dict[Hashable, Code], key: Hashable, make: Callable[[], Code]
) -> Code:
    """Return the program of a key; make it, in place of the oldest, if there is none.

    programs: those that the process keeps, which are changed.
    """
    if key not in programs:
        while len(programs) >= _KEPT:
            del programs[next(iter(programs))]
        programs[key] = make()
    return programs[key]


def _graph_topology(graph: Graph) -> str:
    digest = hashlib.sha256()
    for tensor in (graph.z, graph.batch, graph.edge_index, graph.shift):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
