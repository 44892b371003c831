"""Networks that are small enough for tests, of every kind that starts untrained."""

from typing import Any

import torch

from alloop.models.graph import Graph
from alloop.models.network import Network, NetworkOutput, build_network
from alloop.models.networks.painn import PaiNN

SMALL: dict[str, dict[str, Any]] = {
    "painn": {"channels": 8, "layers": 2},
    "tensor-painn": {"channels": 8, "layers": 2},
    "egnn": {"channels": 8, "layers": 2},
    "tensornet": {"channels": 8, "layers": 1},
    "gemnet": {"channels": 8, "narrow": 4, "layers": 1, "spherical": 4, "radial": 4},
    "schnet": {"channels": 8, "layers": 2, "radial": 10},
    "visnet": {"channels": 8, "heads": 2, "layers": 2, "radial": 10},
}
LEAST: dict[str, dict[str, Any]] = {
    kind: dict.fromkeys(settings, 1) for kind, settings in SMALL.items()
} | {"schnet": {"channels": 1, "layers": 1, "radial": 2}}
_NUDGE = 0.03


def small(
    kind: str, seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any
) -> Network:
    """A small network as after some training: biases are not zero any more."""
    network = build_network(kind, SMALL[kind] | settings, seed, dtype)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight += _NUDGE * torch.randn(weight.shape, generator=noise)
    return network


class LittleMemory(PaiNN):
    """PaiNN on a device whose memory holds so many atoms, as torch says it."""

    most = 0
    tried: tuple[int, ...] = ()

    def forward(self, graph: Graph) -> NetworkOutput:
        LittleMemory.tried = (*self.tried, len(graph.z))
        if len(graph.z) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(graph)
