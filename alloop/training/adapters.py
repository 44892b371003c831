"""Low-rank adapters: fine-tuning moves few directions of each large matrix.

Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685. A
matrix W becomes W + (alpha/rank) A B with narrow factors that are trained in its place;
all other weights but the readouts stay as they were. At the end of a training the sums
take the place of W, so that a model has no more weights than before.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from alloop.core.errors import InputError
from alloop.core.seeds import torch_seed
from alloop.models.network import Network, build_network
from alloop.training.stages import Adapters

_INSIDE = "parametrizations"  # torch's name of what it puts beside a weight


class LowRankSum(nn.Module):
    """W + scale A B of a matrix W, or of each matrix of a stack (..., rows, columns).

    A is drawn with a variance of one over the rows, B is 0 at first, and so is the sum.
    """

    def __init__(
        self, weight: Tensor, adapters: Adapters, generator: torch.Generator
    ) -> None:
        super().__init__()
        *stack, rows, columns = weight.shape
        drawn = torch.randn(*stack, rows, adapters.rank, generator=generator)
        self.first = nn.Parameter((drawn / math.sqrt(rows)).to(weight))
        self.second = nn.Parameter(weight.new_zeros(*stack, adapters.rank, columns))
        self.scale = adapters.alpha / adapters.rank

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sum."""
        return weight + self.scale * (self.first @ self.second)


def with_adapters(network: Network, adapters: Adapters, seed: int) -> Network:
    """Return a copy of a network in which adapters and readouts alone are trained.

    Adapters are where they have fewer numbers than the matrix. What a user froze gets
    none. Raises InputError where no matrix is large enough for one.
    """
    adapted = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(torch_seed(seed, "adapters"))
    names = adapted_names(adapted, adapters.rank)
    if not names:
        raise InputError(
            f"expected adapters with fewer numbers than a matrix of {network.kind}, "
            f"got rank {adapters.rank}; choose a lower rank, or train all weights"
        )
    for name, weight in list(adapted.named_parameters()):
        if name in names:
            path, _, last = name.rpartition(".")
            sums = LowRankSum(weight.detach(), adapters, generator)
            parametrize.register_parametrization(
                adapted.get_submodule(path), last, sums, unsafe=True
            )
        if not name.startswith(adapted.readout_names):
            weight.requires_grad_(False)
    return adapted


def adapted_names(network: Network, rank: int) -> frozenset[str]:
    """Return the names of the matrices that adapters of this rank make smaller."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    return frozenset(
        name
        for name, weight in network.named_parameters()
        if weight.requires_grad
        if weight.ndim >= 2 and id(weight) not in tables
        if rank * sum(weight.shape[-2:]) < math.prod(weight.shape[-2:])
        if not name.startswith(network.readout_names)
    )


def without_adapters(network: Network) -> Network:
    """Return the network whose matrices are the sums; itself without adapters."""
    if not any(map(parametrize.is_parametrized, network.modules())):
        return network
    state = {}
    for name, tensor in network.state_dict().items():
        path, inside, rest = name.partition(f".{_INSIDE}.")
        last, _, part = rest.partition(".")
        if not inside:
            state[name] = tensor
        elif part == "original":
            state[f"{path}.{last}"] = getattr(network.get_submodule(path), last)
    some = next(network.parameters())
    # Made anew: torch cannot take a parametrization off a list of parameters.
    merged = build_network(
        network.kind, network.settings, dtype=some.dtype, pretrained=False
    )
    merged.load_state_dict(state)
    return merged.to(some.device)
