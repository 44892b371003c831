"""Bonds and angles of a graph, and CHGNet's gated MLP of concatenated rows.

A bond is an edge without its direction; an angle is a pair of edges of the same centre.
The MLP does without the concatenation: W [a_i; b_j; ...] + c = (W_a a)_i + (W_b b)_j +
... + c, so that products are taken before rows are gathered, of which there are many
more (an atom has dozens of angles).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_GRAIN = 1e-3  # Å: lattice vectors that differ by less are the same


class BondGraph(NamedTuple):
    """The bonds of a graph.

    of (edges,): the bond of each edge; edge (bonds,): an edge of each bond.
    """

    of: Tensor
    edge: Tensor


def bond_graph(edge_index: Tensor, shift: Tensor) -> BondGraph:
    """Return the bonds of directed edges.

    The edges (2, edges) are [sender, receiver], with shifts (edges, 3) in Å. Every edge
    must come both ways, as `alloop.models.graph.to_graph` lists them.
    """
    if edge_index.shape[1] == 0:
        return BondGraph(edge_index[0], edge_index[0])
    steps = torch.round(shift / _GRAIN).to(torch.int64)
    sender, receiver = edge_index
    low, high = torch.minimum(sender, receiver), torch.maximum(sender, receiver)
    if bool(steps.any()):
        turned = (receiver > sender) | ((receiver == sender) & _is_backward(steps))
        steps = torch.where(turned.unsqueeze(-1), -steps, steps)
        rows = torch.cat([low.unsqueeze(-1), high.unsqueeze(-1), steps], dim=-1)
        _, of = torch.unique(rows, dim=0, return_inverse=True)
    else:
        _, of = torch.unique(low * (high.max() + 1) + high, return_inverse=True)
    first = of.new_full((int(of.max()) + 1,), len(of))
    numbers = torch.arange(len(of), device=of.device)
    return BondGraph(of, first.scatter_reduce(0, of, numbers, "amin"))


def _is_backward(steps: Tensor) -> Tensor:
    """Return True where the first component that is not zero is negative, (edges,)."""
    x, y, z = steps.T
    return torch.where(x != 0, x, torch.where(y != 0, y, z)) < 0


def bond_angles(centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return ordered pairs of different edges that share their centre.

    They are two indices (angles,). centre (edges,) is the receiver of each edge.
    """
    order = torch.argsort(centre, stable=True)
    around = centre[order]
    counts = torch.bincount(around)
    start = torch.cumsum(counts, 0) - counts
    fans = counts[around]  # the number of edges that share each edge's centre
    one = torch.repeat_interleave(fans)
    place = (
        torch.arange(len(one), device=one.device) - (torch.cumsum(fans, 0) - fans)[one]
    )
    other = start[around[one]] + place
    different = one != other
    return order[one[different]], order[other[different]]


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
