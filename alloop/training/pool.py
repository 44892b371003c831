"""Labels made ready for the optimiser: neighbours found once, batches by indexing.

Positions do not move while a network learns, so a frame's neighbours are looked up when
the pool is made, and a step only gathers rows.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from alloop.core.batch import take_atoms
from alloop.core.records import LabelSet
from alloop.core.seeds import stream
from alloop.core.units import Floats, Integers
from alloop.models.geometric import Data
from alloop.models.graph import Graph, to_graph
from alloop.training.losses import Targets


@dataclass(frozen=True, slots=True)
class Order:
    """Which frames make up which step: a pure function of seed, name and step.

    Each epoch has its own random stream, so that a stage could be taken up again in its
    middle. The frames that do not fill a last batch sit that epoch out.
    """

    seed: int
    name: str
    frames: int
    batch: int

    def at(self, step: int) -> Integers:
        """The frames of a step, (batch,), or all of them where there are no more."""
        if self.frames <= self.batch:
            return np.arange(self.frames)
        epoch, part = divmod(step, self.frames // self.batch)
        order = stream(self.seed, f"{self.name}/{epoch}").permutation(self.frames)
        return order[part * self.batch : (part + 1) * self.batch]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Labelled frames (energies less their references) as one graph with its targets.

    Targets are in units of `scale` (eV, eV/Å), as the network's own output is.
    """

    labels: LabelSet
    scale: float
    graph: Graph
    target: Targets
    edges: Integers = field(repr=False)  # (frames + 1,) offsets of the frames' edges

    def __len__(self) -> int:
        return len(self.labels)

    def weighed(self, weights: Floats) -> "Pool":
        """The same frames with weights (frames,) of mean 1."""
        dtype = self.target.forces.dtype
        w = torch.tensor(weights, dtype=dtype)
        return replace(self, target=replace(self.target, weights=w))

    def take(self, frames: Integers) -> tuple[Graph, Targets]:
        """The graph and the targets of some frames, in that order."""
        offsets = self.labels.batch.offsets
        atoms = torch.from_numpy(take_atoms(offsets, frames))
        edges = torch.from_numpy(take_atoms(self.edges, frames))
        sizes = np.diff(offsets)[frames]
        first = np.cumsum(sizes) - sizes  # where each frame's atoms start now
        moved = np.repeat(first - offsets[frames], np.diff(self.edges)[frames])
        owner = torch.from_numpy(np.repeat(np.arange(len(frames)), sizes))
        chosen = torch.from_numpy(frames)
        whole = self.graph
        graph = Data(
            z=whole.z[atoms],
            pos=whole.pos[atoms],
            edge_index=whole.edge_index[:, edges] + torch.from_numpy(moved),
            shift=whole.shift[edges],
            batch=owner,
            charge=whole.charge[chosen],
            spin=whole.spin[chosen],
        )
        graph.num_graphs = len(frames)
        target = Targets(
            energies=self.target.energies[chosen],
            forces=self.target.forces[atoms],
            weights=self.target.weights[chosen],
            owner=owner,
        )
        return graph, target


def force_scale(labels: LabelSet) -> float:
    """Root mean square of the force components in eV/Å; 1 where all are zero."""
    return float(np.sqrt(np.mean(np.square(labels.forces)))) or 1.0


def make_pool(
    labels: LabelSet, scale: float, cutoff: float, dtype: torch.dtype = torch.float32
) -> Pool:
    """The pool of labels whose energies are already less their references."""
    graph = to_graph(labels.batch, cutoff, dtype)
    owners = graph.batch[graph.edge_index[1]]
    counts = np.bincount(owners.numpy(), minlength=len(labels))
    target = Targets(
        energies=torch.tensor(labels.energies / scale, dtype=dtype),
        forces=torch.tensor(labels.forces / scale, dtype=dtype),
        weights=torch.ones(len(labels), dtype=dtype),
        owner=graph.batch,
    )
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Pool(labels, scale, graph, target, edges)
