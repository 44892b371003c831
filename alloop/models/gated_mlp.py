"""CHGNet's gated MLP of concatenated rows, without the concatenation.

W [a_i; b_j; ...] + c = (W_a a)_i + (W_b b)_j + ... + c: the products are taken before
rows are gathered, of which there are many more (an atom has dozens of angles).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class MLPPart(NamedTuple):
    """One part of the concatenated rows.

    rows (things, features); taken: the row that each message takes, None for all in
    order.
    """

    rows: Tensor
    taken: Tensor | None = None


def gated_mlp(mlp: Any, parts: Sequence[MLPPart]) -> Tensor:
    """Apply CHGNet's `GatedMLP` to parts side by side: (messages, features)."""
    core, *core_rest = _from_first_linear(mlp.mlp_core.layers)
    gate, *gate_rest = _from_first_linear(mlp.mlp_gate.layers)
    weight = torch.cat([core.weight, gate.weight])  # (2 hidden, inputs)
    widths = [part.rows.shape[1] for part in parts]
    x = torch.cat([core.bias, gate.bias])
    for part, w in zip(parts, torch.split(weight, widths, dim=1), strict=True):
        y = part.rows @ w.T
        x = x + (y if part.taken is None else y.index_select(0, part.taken))
    a, b = torch.split(x, len(core.bias), dim=1)
    a, b = _apply_layers(core_rest, a), _apply_layers(gate_rest, b)
    out: Tensor = mlp.activation(mlp.bn1(a)) * mlp.sigmoid(mlp.bn2(b))
    return out


def _from_first_linear(layers: nn.Sequential) -> list[Any]:
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    return list(layers)[first:]


def _apply_layers(layers: Sequence[Any], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
