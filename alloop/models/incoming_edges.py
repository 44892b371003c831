"""The edges that arrive at each atom, side by side, and the reverse of each edge."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alloop.core.units import Integers
from alloop.models.graph import Graph


class IncomingEdges(NamedTuple):
    """Edges in rows of equal width, a row for each atom that they arrive at.

    slots (edges,): the place of each edge in the flat rows, None where the edges fill
    all of them in order, as in a batch of one molecule. back (edges,): the edge that
    runs the other way.
    """

    atoms: int
    width: int
    slots: Tensor | None
    back: Tensor

    def to_rows(self, x: Tensor) -> Tensor:
        """Convert (edges, F) to (atoms, width, F), zero where there is no edge."""
        if self.slots is not None:
            zero = x.new_zeros(self.atoms * self.width, x.shape[1])
            x = zero.index_copy(0, self.slots, x)
        return x.view(self.atoms, self.width, x.shape[1])

    def from_rows(self, x: Tensor) -> Tensor:
        """Convert (atoms, width, ...) to (edges, ...); the inverse of `to_rows`."""
        x = x.flatten(0, 1)
        return x if self.slots is None else x.index_select(0, self.slots)


def incoming_edges(graph: Graph) -> IncomingEdges:
    """Sort the edges of a graph, in which every edge comes both ways."""
    senders, receivers = graph.edge_index.cpu().numpy()
    shift = graph.shift.detach().cpu().numpy().T
    atoms = len(graph.z)
    degree = np.bincount(receivers, minlength=atoms)
    width = int(degree.max(initial=0))
    there = np.lexsort((*shift, senders, receivers))
    back = np.empty_like(there)
    back[np.lexsort((*-shift, receivers, senders))] = there
    places = _row_places(receivers, degree, width)
    whole = np.array_equal(places, np.arange(atoms * width))
    device = graph.edge_index.device
    slots = None if whole else torch.as_tensor(places, device=device)
    return IncomingEdges(atoms, width, slots, torch.as_tensor(back, device=device))


def _row_places(receivers: Integers, degree: Integers, width: int) -> Integers:
    """Return the place of each edge in rows of `width`, in the edges' order."""
    order = np.argsort(receivers, kind="stable")
    first = np.cumsum(degree) - degree
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - first[receivers[order]]
    places: Integers = receivers * width + rank
    return places
