"""A learned potential with a second head, for the cheap level, on one representation.

It predicts the expensive level, as any other potential; the second head is what
test-time training needs (`alloop.refine.test_time`).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alloop.models.checkpoint import Checkpoint
from alloop.models.heads import head_names
from alloop.models.layers import Network
from alloop.potentials.learned import (
    HeadedPotential,
    LearnedPotential,
    from_checkpoint,
    without_head,
)

SETTING = "cheap_head"
_PREFIX = "cheap/"


@dataclass(frozen=True, slots=True, eq=False)
class CheapHead:
    """The weights of a head by name, and the references (eV) of its level."""

    weights: Mapping[str, npt.NDArray[Any]]
    references: Mapping[int, float]

    @classmethod
    def of(cls, network: Network, references: Mapping[int, float]) -> "CheapHead":
        """Return the head of a network that was trained at the cheap level."""
        state = network.state_dict()
        names = sorted(head_names(network))
        weights = {name: state[name].cpu().numpy().copy() for name in names}
        return cls(weights, dict(references))


class TwoHeadPotential(HeadedPotential[CheapHead]):
    """A learned potential that carries the head of the cheap level too."""

    def with_network(self, network: Network) -> "TwoHeadPotential":
        """Return the potential with another network of the same kind."""
        plain = LearnedPotential(
            network, self.references, self.scale, self.device, self.repulsion
        )
        return TwoHeadPotential(plain, self.head)

    def cheap(self) -> LearnedPotential:
        """Return the potential of the cheap level."""
        network = copy.deepcopy(self.frozen_network)
        weights = {k: torch.from_numpy(v.copy()) for k, v in self.head.weights.items()}
        network.load_state_dict({**network.state_dict(), **weights})
        return LearnedPotential(
            network, self.head.references, self.scale, self.device, self.repulsion
        )

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        plain = super().checkpoint()
        references = {str(z): e for z, e in self.head.references.items()}
        weights = {_PREFIX + k: np.array(v) for k, v in self.head.weights.items()}
        return replace(
            plain,
            settings={**plain.settings, SETTING: {"references": references}},
            tensors={**plain.tensors, **weights},
        )


def two_heads_from_checkpoint(checkpoint: Checkpoint) -> TwoHeadPotential:
    """Return the potential that `TwoHeadPotential.checkpoint` described.

    Raises ValueError where the head is not one of the network.
    """
    plain = from_checkpoint(without_head(checkpoint, SETTING, _PREFIX))
    weights = {
        k.removeprefix(_PREFIX): v
        for k, v in checkpoint.tensors.items()
        if k.startswith(_PREFIX)
    }
    state = plain.frozen_network.state_dict()
    if set(weights) != head_names(plain.frozen_network) or any(
        state[k].shape != v.shape for k, v in weights.items()
    ):
        raise ValueError("the cheap head is not one of its network")
    references = checkpoint.settings[SETTING]["references"]
    numbers = {int(z): float(e) for z, e in references.items()}
    return TwoHeadPotential(plain, CheapHead(weights, numbers))
