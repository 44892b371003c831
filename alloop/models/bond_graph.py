"""Directed edges as bonds and angles, for networks with three-body terms.

A bond is an edge without its direction; an angle is a pair of edges of the same centre.
"""

from typing import NamedTuple

import torch
from torch import Tensor

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
