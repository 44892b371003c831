"""The loss gradient of a batch as compiled code.

Energies, forces, loss and the gradients by all weights are traced as one graph of plain
operations, since torch.compile cannot itself differentiate a derivative
(`alloop.models.compilation`). Weights, positions, labels and random numbers are inputs
of the graph, so that one program serves all steps, stages and generations of a network.
"""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from alloop.models.compilation import Code, NotCompiled, compile_function
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.models.pyg import Data
from alloop.training.losses import (
    Drawn,
    GradientFunction,
    LossGradient,
    Objective,
    Targets,
    eager_gradients,
    loss_gradient,
)

_CLOSE = 1e-3  # of the gradient's norm: far above rounding, far below a wrong term
_TRUSTED = 5  # sets of shapes whose gradients agreed, after which no more are checked
_KEPT = 8  # programs that a process keeps

_programs: dict[Hashable, Code] = {}


@dataclass(frozen=True, slots=True, eq=False)
class _FlatLayout:
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
        """Return the tensors of network, graph and targets, and the random numbers."""
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


@dataclass(slots=True, eq=False)
class CompiledGradients:
    """Loss gradients by a compiled program, or by eager torch where it does not fit.

    A batch of each of the first few sets of shapes is computed both ways; a program
    that gives another gradient is not used for batches of those shapes. Implements
    `GradientFunction`.
    """

    layout: _FlatLayout
    program: Code
    plain: GradientFunction
    agreed: dict[tuple[torch.Size, ...], bool] = field(default_factory=dict)

    def __call__(self, graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        """Return loss and gradients, by the compiled program where it agrees."""
        flat = self.layout.flat(graph, target, drawn)
        shapes = tuple(tensor.shape for tensor in flat)
        if shapes not in self.agreed and len(self.agreed) < _TRUSTED:
            self.agreed[shapes] = self._agrees(flat, graph, target, drawn)
        if not self.agreed.get(shapes, True):
            return self.plain(graph, target, drawn)
        try:
            loss, *gradients = self.program(*flat)
        except AssertionError:  # shapes that the program was not made for
            self.agreed[shapes] = False
            return self.plain(graph, target, drawn)
        return LossGradient(loss, tuple(gradients))

    def _agrees(
        self, flat: list[Tensor], graph: Graph, target: Targets, drawn: Drawn
    ) -> bool:
        try:
            found = self.program(*flat)
        except AssertionError:
            return False
        return _all_close(found, self.plain(graph, target, drawn))


def compile_gradients(
    network: Network,
    objective: Objective,
    batch: tuple[Graph, Targets, Drawn],
    general: bool,
) -> CompiledGradients:
    """Return compiled gradients for batches like this one.

    general: for batches of other shapes and molecules too. The first call for a network
    and an objective takes tens of CPU seconds, fewer where torch finds the machine code
    of an earlier process; later calls in this process take none. Raises NotCompiled
    where there is no compiler, where the network cannot be traced, or where the program
    does not give this batch's gradient.
    """
    if not (network.compiled_training and network.is_traceable(batch[0])):
        raise NotCompiled(f"training of {network.kind} is not compiled")
    layout = _flat_layout(network, objective, batch[0], batch[1])
    flat = layout.flat(*batch)
    key = _program_key(layout, flat, batch[0], general)
    if key not in _programs:
        while len(_programs) >= _KEPT:
            del _programs[next(iter(_programs))]
        _programs[key] = compile_function(layout.gradient, flat, general=general)
    compiled = CompiledGradients(
        layout, _programs[key], eager_gradients(network, objective)
    )
    compiled(*batch)
    if not all(compiled.agreed.values()):
        raise NotCompiled("the compiled gradient differs from the one that torch gives")
    return compiled


def _all_close(found: Sequence[Tensor], wanted: LossGradient) -> bool:
    pairs = list(zip(found, (wanted.loss, *wanted.gradients), strict=True))
    off = sum(float((ours - true).square().sum()) for ours, true in pairs)
    size = sum(float(true.square().sum()) for _, true in pairs)
    return off <= _CLOSE**2 * size


def _network_state(network: Network) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _flat_layout(
    network: Network, objective: Objective, graph: Graph, target: Targets
) -> _FlatLayout:
    state = _network_state(network)
    free = [name for name, tensor in state.items() if tensor.requires_grad]
    fixed = [name for name in state if name not in free]
    given = graph.to_dict()
    return _FlatLayout(
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


def _program_key(
    layout: _FlatLayout, flat: Sequence[Tensor], graph: Graph, general: bool
) -> Hashable:
    """Return all that a program depends on: whatever is traced but is not an input.

    A network may read the neighbour list while it is traced for one molecule.
    """
    network = layout.network
    return (
        type(network),
        json.dumps(network.settings, sort_keys=True),
        (layout.objective, layout.free, layout.fields, layout.labels),
        tuple(layout.constants.items()),
        tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in flat),
        "any" if general else _graph_topology(graph),
    )


def _graph_topology(graph: Graph) -> str:
    digest = hashlib.sha256()
    for tensor in (graph.z, graph.batch, graph.edge_index, graph.shift):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
