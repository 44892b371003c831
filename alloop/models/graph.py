"""A batch of frames as the graph that every network reads."""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from alloop.core.batch import Batch
from alloop.models.neighbours import (
    SMALL,
    NeighbourPairs,
    is_static,
    neighbour_pairs,
    static_pairs,
)
from alloop.models.pyg import Data

Graph: TypeAlias = Any  # torch_geometric.data.Data, which ships no types


def to_graph(
    batch: Batch,
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    small: int = SMALL,
) -> Graph:
    """Return the graph of a batch.

    Fields: z (atoms,), pos (atoms, 3) Å, batch (atoms,) the frame of each atom,
    edge_index (2, edges) as [sender, receiver], shift (edges, 3) Å to add to the
    sender's position, charge and spin (frames,), num_graphs. Molecules of up to `small`
    atoms get all pairs, so that edges longer than `cutoff` (Å) occur: the network must
    give them no effect.
    """
    edge_index, shift, owner = _graph_topology(batch, cutoff, dtype, device, small)
    graph = Data(
        z=torch.as_tensor(batch.numbers.copy(), device=device),
        pos=_float_tensor(batch.positions, dtype, device),
        edge_index=edge_index,
        shift=shift,
        batch=owner,
        charge=_float_tensor(batch.charges, dtype, device),
        spin=_float_tensor(batch.spins, dtype, device),
    )
    graph.num_graphs = len(batch)
    return graph


def edge_vectors(graph: Graph) -> Tensor:
    """Return the vectors from receiver to sender, (edges, 3) Å."""
    senders, receivers = graph.edge_index
    pos: Tensor = graph.pos
    there: Tensor = pos.index_select(0, senders) + graph.shift
    return there.sub(pos.index_select(0, receivers))


def sum_frames(per_atom: Tensor, graph: Graph) -> Tensor:
    """Sum over the atoms of each frame: (atoms, ...) -> (frames, ...)."""
    total = per_atom.new_zeros(graph.num_graphs, *per_atom.shape[1:])
    return total.index_add(0, graph.batch, per_atom)


def bond_angles(centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return ordered pairs of different edges that share their centre.

    They are two indices (angles,). centre (edges,) is the receiver of each edge.
    """
    order = torch.argsort(centre, stable=True)
    around = centre[order]
    counts = torch.bincount(around)
    start = torch.cumsum(counts, 0) - counts
    fans = counts[around]  # the number of edges that share each edge's centre
    first = torch.repeat_interleave(fans)  # each edge once for each of its fan
    place = (
        torch.arange(len(first), device=first.device)
        - (torch.cumsum(fans, 0) - fans)[first]
    )
    second = start[around[first]] + place
    different = first != second
    return order[first[different]], order[second[different]]


def _graph_topology(
    batch: Batch,
    cutoff: float,
    dtype: torch.dtype,
    device: str | torch.device,
    small: int,
) -> tuple[Tensor, Tensor, Tensor]:
    if is_static(batch, small):
        return _static_topology(tuple(batch.sizes.tolist()), dtype, str(device))
    pairs = neighbour_pairs(batch, cutoff, small)
    return _pair_tensors(pairs, batch.sizes, dtype, device)


@lru_cache(maxsize=64)
def _static_topology(
    sizes: tuple[int, ...], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    return _pair_tensors(static_pairs(sizes), np.array(sizes, np.int64), dtype, device)


def _pair_tensors(
    pairs: NeighbourPairs, sizes: Any, dtype: torch.dtype, device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    edges = np.stack([pairs.neighbours, pairs.centres])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return (
        torch.as_tensor(edges, device=device),
        _float_tensor(pairs.shifts, dtype, device),
        torch.as_tensor(owner, device=device),
    )


def _float_tensor(
    values: Any, dtype: torch.dtype, device: str | torch.device
) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
