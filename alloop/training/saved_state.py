"""The saved state of a training, to resume it after a kill, and the name it goes by."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alloop.core.units import Floats
from alloop.models.checkpoint import Checkpoint, content_id
from alloop.models.network import Network
from alloop.training.graph_pool import GraphPool
from alloop.training.monitor import TrainingMonitor
from alloop.training.optimisation import Optimisation
from alloop.training.progress import TrainingProgress

_KIND = "training"


class StateKeeper(Protocol):
    """A store of training states; `alloop.training.state_files` has one on disk.

    A name is 32 hexadecimal digits and stands for one training of one stage, with its
    labels, seed and settings: a state under another name is never resumed.
    """

    def due(self) -> bool:
        """Return True if it is time to save.

        It may look at a clock, since no result depends on it.
        """

    def save(self, name: str, state: Checkpoint) -> None:
        """Save a state in place of the last one of that name."""

    def load(self, name: str) -> Checkpoint | None:
        """Return the last state of that name, or None where there is none."""

    def tell(self, told: TrainingProgress) -> None:
        """Receive the progress of the training, each time that a loss is recorded."""


@dataclass(slots=True)
class TrainingPosition:
    """The position of a training.

    The steps taken and planned, whether they were to be compiled, how they were
    computed, and the CPU seconds used.
    """

    step: int = 0
    planned: int = 0
    compile: bool = False
    engine: str = "plain"
    cpu_seconds: float = 0.0


def pack_state(
    walk: Optimisation, watch: TrainingMonitor, progressed: TrainingPosition
) -> Checkpoint:
    """Return all that the rest of a training depends on."""
    best = {f"best/{name}": tensor for name, tensor in (watch.best or {}).items()}
    facts = {"watch": watch.to_json, "progressed": asdict(progressed)}
    return Checkpoint(_KIND, facts, _copied_arrays({**walk.tensors, **best}))


def unpack_state(
    state: Checkpoint, walk: Optimisation, watch: TrainingMonitor
) -> TrainingPosition:
    """Restore optimisation and monitor from a state; return the training's position."""
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in state.tensors.items()}
    best = {
        name.removeprefix("best/"): tensor
        for name, tensor in tensors.items()
        if name.startswith("best/")
    }
    walk.restore(tensors)
    watch.restore(state.settings["watch"], best or None)
    return TrainingPosition(**state.settings["progressed"])


def training_name(
    network: Network, pools: Iterable[GraphPool | None], facts: Iterable[object]
) -> str:
    """Return 32 hexadecimal digits of all that decides the outcome of a stage.

    facts: whatever else decides it, by its repr (stage, seed, objective).
    """
    digest = hashlib.sha256()
    own = Checkpoint(
        network.kind, network.settings, _copied_arrays(network.state_dict())
    )
    parts = [_KIND, torch.__version__, content_id(own), *map(repr, facts)]
    digest.update("\n".join(parts).encode())
    for pool in pools:
        digest.update(b"none" if pool is None else _pool_content(pool).encode())
    return digest.hexdigest()[:32]


def _pool_content(pool: GraphPool) -> str:
    graph, target = pool.graph, pool.target
    named = {key: value for key, value in graph.to_dict().items() if key != "batch"}
    tensors = {name: t for name, t in named.items() if isinstance(t, Tensor)} | {
        "energies": target.energies,
        "forces": target.forces,
        "weights": target.weights,
        "owner": target.owner,
    }
    return content_id(Checkpoint(_KIND, {"scale": pool.scale}, _copied_arrays(tensors)))


def _copied_arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return copies, which later steps do not change."""
    copies: dict[str, Floats] = {
        name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()
    }
    return copies
