"""The loss gradient of a batch as compiled code, or as recorded operations.

Network, batch and labels of a step are one flat list of tensors. Loss and gradients of
such a list are a pure function, which is traced as one graph of plain operations, since
torch.compile cannot itself differentiate a derivative (`alloop.models.compilation`).
Weights, positions, labels and random numbers are its inputs, so that one traced program
serves all steps, stages and generations of a network.

Python and autograd take almost half of a step on a few small molecules: recorded
operations are torch's own without them, in its order, so that a training ends at the
same bits with them and without. Compiled code
differs in rounding.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from alloop.models.compilation import (
    Code,
    NotCompiled,
    compile_function,
    record_function,
)
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

_programs: dict[Hashable, Code] = {}

_CACHE_SIZE = 8  # programs of a kind that a process keeps
_recordings: dict[Hashable, Code] = {}


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
        attributes = (graph[name] for name in self.fields)
        labels = (getattr(target, name) for name in self.labels)
        return [*self.own, *attributes, *labels, *drawn]

    def gradient(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Return loss and gradients for a flat list; this method is traced."""
        rest = iter(flat)
        free = {name: next(rest).detach().requires_grad_() for name in self.free}
        fixed = {name: next(rest) for name in self.fixed}
        graph = Data(**{name: next(rest) for name in self.fields})
        for name, value in self.constants.items():
            setattr(graph, name, value)
        labels: dict[str, Any] = {name: next(rest) for name in self.labels}
        target = Targets(**labels)
        module = _LossModule(self.network, self.objective)
        state = {f"network.{name}": tensor for name, tensor in (free | fixed).items()}
        loss = torch.func.functional_call(module, state, (graph, target, tuple(rest)))
        result = loss_gradient(loss, list(free.values()))
        return (result.loss, *result.gradients)


@dataclass(slots=True, eq=False)
class CompiledGradients:
    """Loss gradients by a compiled program, or by eager torch where it does not fit.

    A batch of each of the first few sets of shapes is computed both ways; a program
    that gives another gradient is not used for batches of those shapes. Implements
    `GradientFunction`.
    """

    layout: FlatLayout
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
            result = self.program(*flat)
        except AssertionError:
            return False
        return _all_close(result, self.plain(graph, target, drawn))


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
    layout = flat_layout(network, objective, batch[0], batch[1])
    flat = layout.flat(*batch)
    changing = range(len(layout.own), len(flat)) if general else ()
    key = program_key(layout, flat, batch[0], general)
    program = cached_program(
        _programs,
        key,
        lambda: compile_function(layout.gradient, flat, any_length=changing),
    )
    compiled = CompiledGradients(layout, program, eager_gradients(network, objective))
    compiled(*batch)
    if not all(compiled.agreed.values()):
        raise NotCompiled("the compiled gradient differs from the one that torch gives")
    return compiled


def _all_close(tensors: Sequence[Tensor], reference: LossGradient) -> bool:
    pairs = list(zip(tensors, (reference.loss, *reference.gradients), strict=True))
    off = sum(float((ours - true).square().sum()) for ours, true in pairs)
    size = sum(float(true.square().sum()) for _, true in pairs)
    return off <= _CLOSE**2 * size


@dataclass(frozen=True, slots=True, eq=False)
class RecordedGradients:
    """Loss gradients by a recording, or by eager torch for batches of other shapes.

    Implements `GradientFunction`.
    """

    layout: FlatLayout
    recording: Code
    plain: GradientFunction
    shapes: tuple[torch.Size, ...]

    def __call__(self, graph: Graph, target: Targets, drawn: Drawn) -> LossGradient:
        """Return loss and gradients."""
        flat = self.layout.flat(graph, target, drawn)
        if tuple(tensor.shape for tensor in flat) != self.shapes:
            return self.plain(graph, target, drawn)
        loss, *gradients = self.recording(*flat)
        return LossGradient(loss, tuple(gradients))

    def is_exact(self, batch: tuple[Graph, Targets, Drawn]) -> bool:
        """Return True if the recording gives the bits that eager torch gives."""
        result, reference = self(*batch), self.plain(*batch)
        pairs = zip(result.gradients, reference.gradients, strict=True)
        return torch.equal(result.loss, reference.loss) and all(
            torch.equal(ours, true) for ours, true in pairs
        )


def record_gradients(
    network: Network, objective: Objective, batch: tuple[Graph, Targets, Drawn]
) -> RecordedGradients:
    """Return recorded gradients for batches of the same molecules as this one.

    The first call for a network and an objective takes a few CPU seconds, later calls
    in this process take none. Raises NotCompiled where the network cannot be traced, or
    where the recording gives other bits than torch.
    """
    if not (network.compiled_training and network.is_traceable(batch[0])):
        raise NotCompiled(f"training of {network.kind} is not recorded")
    layout = flat_layout(network, objective, batch[0], batch[1])
    flat = layout.flat(*batch)
    key = program_key(layout, flat, batch[0], general=False)
    recorded = RecordedGradients(
        layout=layout,
        recording=cached_program(
            _recordings, key, lambda: record_function(layout.gradient, flat)
        ),
        plain=eager_gradients(network, objective),
        shapes=tuple(tensor.shape for tensor in flat),
    )
    if not recorded.is_exact(batch):
        raise NotCompiled("the recorded gradient has other bits than torch's")
    return recorded


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
    attributes = graph.to_dict()
    return FlatLayout(
        network=network,
        objective=objective,
        free=tuple(free),
        fixed=tuple(fixed),
        fields=tuple(k for k, v in attributes.items() if isinstance(v, Tensor)),
        labels=tuple(
            x.name for x in fields(Targets) if getattr(target, x.name) is not None
        ),
        constants={k: v for k, v in attributes.items() if not isinstance(v, Tensor)},
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


def cached_program(
    programs: dict[Hashable, Code], key: Hashable, make: Callable[[], Code]
) -> Code:
    """Return the program of a key; make it, in place of the oldest, if there is none.

    programs: those that the process keeps, which are changed.
    """
    if key not in programs:
        while len(programs) >= _CACHE_SIZE:
            del programs[next(iter(programs))]
        programs[key] = make()
    return programs[key]


def _graph_topology(graph: Graph) -> str:
    digest = hashlib.sha256()
    for tensor in (graph.z, graph.batch, graph.edge_index, graph.shift):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
