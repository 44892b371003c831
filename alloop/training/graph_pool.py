"""Labelled frames prepared for training: neighbours found once, batches by indexing.

Positions do not change while a network is trained, so a frame's neighbours are searched
when the pool is made, and a step only gathers rows.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from alloop.core.batch import take_atoms
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.core.stress import virial_per_atom
from alloop.core.units import Floats, Integers
from alloop.models.graph import Graph, to_graph
from alloop.models.pyg import Data
from alloop.training.losses import Targets


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The frames of each step: a pure function of seed, name and step.

    Each epoch has its own random stream, so that a stage can be resumed in its middle.
    The frames that do not fill a last batch are left out of that epoch.
    """

    seed: int
    name: str
    frames: int
    batch: int

    def at(self, step: int) -> Integers:
        """Return the frames of a step, (batch,), or all where there are no more."""
        if self.frames <= self.batch:
            return np.arange(self.frames)
        epoch, part = divmod(step, self.frames // self.batch)
        order = random_stream(self.seed, f"{self.name}/{epoch}").permutation(
            self.frames
        )
        return order[part * self.batch : (part + 1) * self.batch]


@dataclass(frozen=True, slots=True, eq=False)
class GraphPool:
    """Labelled frames (energies less their references) as one graph with its targets.

    Targets are in units of `scale` (eV, eV/Å), as the network's own output is.
    """

    labels: LabelSet
    scale: float
    graph: Graph
    target: Targets
    edges: Integers = field(repr=False)  # (frames + 1,) offsets of the frames' edges
    alike: bool = False  # all frames: the same atoms and neighbours, in order

    def __len__(self) -> int:
        return len(self.labels)

    def with_weights(self, weights: Floats) -> "GraphPool":
        """Return the same frames with weights (frames,) of mean 1."""
        w = torch.tensor(weights).to(self.target.forces)
        return replace(self, target=replace(self.target, weights=w))

    def with_replayed(self, first: int) -> "GraphPool":
        """Return the same frames, of which those from the first on are replayed."""
        graph = copy.copy(self.graph)
        graph.replayed = torch.arange(len(self), device=graph.z.device) >= first
        return replace(self, graph=graph)

    def select(self, frames: Integers) -> tuple[Graph, Targets]:
        """Return the graph and the targets of some frames, in that order."""
        if self.alike and len(frames) <= len(self):
            return self._rows(frames)
        offsets = self.labels.batch.offsets
        atoms = self._index(take_atoms(offsets, frames))
        edges = self._index(take_atoms(self.edges, frames))
        sizes = np.diff(offsets)[frames]
        first = np.cumsum(sizes) - sizes  # where each frame's atoms start now
        moved = np.repeat(first - offsets[frames], np.diff(self.edges)[frames])
        owner = self._index(np.repeat(np.arange(len(frames)), sizes))
        chosen = self._index(frames)
        pooled = self.graph
        graph = Data(
            z=pooled.z[atoms],
            pos=pooled.pos[atoms],
            edge_index=pooled.edge_index[:, edges] + self._index(moved),
            shift=pooled.shift[edges],
            batch=owner,
            charge=pooled.charge[chosen],
            spin=pooled.spin[chosen],
        )
        graph.num_graphs = len(frames)
        self._mark_replayed(graph, chosen)
        target = Targets(
            energies=self.target.energies[chosen],
            forces=self.target.forces[atoms],
            weights=self.target.weights[chosen],
            owner=owner,
            virial=_chosen_rows(self.target.virial, chosen),
            labelled=_chosen_rows(self.target.labelled, atoms),
        )
        return graph, target

    def edge_chunks(self, edges: int) -> Iterator[Integers]:
        """Yield all frames in order, in pieces of at most about `edges` edges."""
        piece = self.edges[:-1] // max(edges, 1)
        yield from np.split(np.arange(len(self)), np.flatnonzero(np.diff(piece)) + 1)

    def _rows(self, frames: Integers) -> tuple[Graph, Targets]:
        """Return what `select` does, for frames that differ in positions and state.

        The tensors that index atoms are those of the first frames.
        """
        count, total = len(frames), len(self)
        atoms = count * (len(self.graph.z) // total)
        edges = count * int(self.edges[1])
        chosen = self._index(frames)
        pooled, owner = self.graph, self.graph.batch[:atoms]

        def of(rows: Tensor) -> Tensor:
            return rows.view(total, -1, 3).index_select(0, chosen).view(-1, 3)

        graph = Data(
            z=pooled.z[:atoms],
            pos=of(pooled.pos),
            edge_index=pooled.edge_index[:, :edges].contiguous(),
            shift=of(pooled.shift),
            batch=owner,
            charge=pooled.charge[chosen],
            spin=pooled.spin[chosen],
        )
        graph.num_graphs = count
        self._mark_replayed(graph, chosen)
        target = self.target
        return graph, Targets(
            energies=target.energies[chosen],
            forces=of(target.forces),
            weights=target.weights[chosen],
            owner=owner,
            virial=_chosen_rows(target.virial, chosen),
            labelled=None
            if target.labelled is None
            else target.labelled.view(total, -1).index_select(0, chosen).view(-1),
        )

    def _mark_replayed(self, graph: Graph, chosen: Tensor) -> None:
        if "replayed" in self.graph:
            graph.replayed = self.graph.replayed[chosen]

    def _index(self, values: Integers) -> Tensor:
        """Return integers as a tensor on the device of the pool."""
        return torch.from_numpy(values).to(self.target.forces.device)


def _chosen_rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def force_scale(labels: LabelSet) -> float:
    """Return the root mean square of the force components (eV/Å); 1 if all are zero.

    Labels that are energies alone do not count.
    """
    forces = labels.forces[np.isfinite(labels.forces)]
    return float(np.sqrt(np.mean(np.square(forces)))) if forces.any() else 1.0


def make_graph_pool(
    labels: LabelSet,
    scale: float,
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> GraphPool:
    """Return the pool of labels whose references are already subtracted.

    device: where its tensors are kept.
    """
    graph = to_graph(labels.batch, cutoff, dtype, device)
    owners = graph.batch[graph.edge_index[1]]
    counts = np.bincount(owners.cpu().numpy(), minlength=len(labels))
    virial = _virial_targets(labels, scale)
    missing = np.asarray(np.isnan(labels.forces).all(axis=1))
    forces: Floats = labels.forces / scale
    forces[missing] = 0.0

    def tensor(values: Floats) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    target = Targets(
        energies=tensor(labels.energies / scale),
        forces=tensor(forces),
        weights=tensor(np.ones(len(labels))),
        owner=graph.batch,
        virial=None if virial is None else tensor(virial),
        labelled=tensor((~missing).astype(np.float64)) if missing.any() else None,
    )
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return GraphPool(
        labels,
        scale,
        graph=graph,
        target=target,
        edges=edges,
        alike=_same_topology(labels, graph, edges),
    )


def _virial_targets(labels: LabelSet, scale: float) -> Floats | None:
    """Return the virials per atom (frames, 6) in units of the scale, None without."""
    if labels.stress is None or not np.isfinite(labels.stress).any():
        return None
    out: Floats = virial_per_atom(labels.batch, labels.stress) / scale
    return out


def _same_topology(labels: LabelSet, graph: Graph, edges: Integers) -> bool:
    """Return True if all frames have the atoms and the neighbours of the first one."""
    frames, atoms, pairs = len(labels), len(graph.z), int(edges[-1])
    first = int(edges[1]) if frames else 0
    if not first or atoms % frames or frames * first != pairs:
        return False
    size = atoms // frames
    z = graph.z.view(frames, size)
    begins = size * torch.arange(frames, device=z.device).view(1, frames, 1)
    local = graph.edge_index.view(2, frames, first) - begins
    return bool(
        (labels.batch.sizes == size).all()
        and (np.diff(edges) == first).all()
        and (z == z[0]).all()
        and (local == local[:, :1]).all()
    )
