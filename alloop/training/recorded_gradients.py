"""The loss gradient of a batch as recorded operations: torch's own bits, sooner.

Python and autograd take almost half of a step on a few small molecules. The recorded
operations are those that torch would run, in its order, so that a training ends at the
same bits with them and without.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from alloop.models.compilation import Code, NotCompiled, record_function
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

_recordings: dict[Hashable, Code] = {}


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
        found, wanted = self(*batch), self.plain(*batch)
        pairs = zip(found.gradients, wanted.gradients, strict=True)
        return torch.equal(found.loss, wanted.loss) and all(
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
        recording=kept_program(
            _recordings, key, lambda: record_function(layout.gradient, flat)
        ),
        plain=eager_gradients(network, objective),
        shapes=tuple(tensor.shape for tensor in flat),
    )
    if not recorded.is_exact(batch):
        raise NotCompiled("the recorded gradient has other bits than torch's")
    return recorded
