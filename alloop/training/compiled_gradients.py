"""The loss gradient of a batch as compiled code.

Energies, forces, loss and the gradients by all weights are traced as one graph of plain
operations (`alloop.training.flat_layout`), since torch.compile cannot itself
differentiate a derivative (`alloop.models.compilation`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alloop.models.compilation import Code, NotCompiled, compile_function
from alloop.models.graph import Graph
from alloop.models.network import Network
from alloop.training.flat_layout import (
    FlatLayout,
    flat_layout,
    kept_program,
    program_key,
)
from alloop.training.losses import (
    Drawn,
    GradientFunction,
    LossGradient,
    Objective,
    Targets,
    eager_gradients,
)

_CLOSE = 1e-3  # of the gradient's norm: far above rounding, far below a wrong term
_TRUSTED = 5  # sets of shapes whose gradients agreed, after which no more are checked

_programs: dict[Hashable, Code] = {}


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
    layout = flat_layout(network, objective, batch[0], batch[1])
    flat = layout.flat(*batch)
    changing = range(len(layout.own), len(flat)) if general else ()
    key = program_key(layout, flat, batch[0], general)
    program = kept_program(
        _programs,
        key,
        lambda: compile_function(layout.gradient, flat, any_length=changing),
    )
    compiled = CompiledGradients(layout, program, eager_gradients(network, objective))
    compiled(*batch)
    if not all(compiled.agreed.values()):
        raise NotCompiled("the compiled gradient differs from the one that torch gives")
    return compiled


def _all_close(found: Sequence[Tensor], wanted: LossGradient) -> bool:
    pairs = list(zip(found, (wanted.loss, *wanted.gradients), strict=True))
    off = sum(float((ours - true).square().sum()) for ours, true in pairs)
    size = sum(float(true.square().sum()) for _, true in pairs)
    return off <= _CLOSE**2 * size
