"""A head of its own for replayed frames, while a pretrained network is fine-tuned.

With shared readouts replayed labels of another level pull the energies of a campaign's
level towards theirs. Here replayed frames have readouts of their own, which begin as
the pretrained ones, and only the layers below are shared; a trained model keeps those
of the campaign's level alone.
"""

import copy

import torch
from torch import Tensor, nn

from alloop.models.graph import Graph
from alloop.models.layers import AtomOutput, Network, NetworkOutput
from alloop.models.pyg import Data


class ReplayHead(Network):
    """A network with two sets of readouts, one of them for replayed frames.

    A graph whose frames are replayed has a field `replayed` (frames,) of booleans; all
    frames of others are the campaign's.
    """

    compiled_training = False

    def __init__(self, inner: Network) -> None:
        nn.Module.__init__(self)
        self.kind, self.settings, self.cutoff = inner.kind, inner.settings, inner.cutoff
        self.references = inner.references
        self.readout_names = inner.readout_names  # type: ignore[misc]
        self.inner = inner
        weights = dict(inner.named_parameters())
        self.names = [name for name in weights if name.startswith(inner.readout_names)]
        self.copies = nn.ParameterList(
            weights[name].detach().clone() for name in self.names
        )

    def is_traceable(self, graph: Graph) -> bool:  # noqa: ARG002
        """Return False: shapes depend on which frames are replayed."""
        return False

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        """Return those of the campaign's level."""
        return self.inner.atom_outputs(graph)

    def forward(self, graph: Graph) -> NetworkOutput:
        """Return energies of all frames; descriptors where none is replayed."""
        if "replayed" not in graph or not bool(graph.replayed.any()):
            out: NetworkOutput = self.inner(graph)
            return out
        energies = graph.pos.new_zeros(graph.num_graphs)
        descriptors = graph.pos.new_zeros(len(graph.z), 0)
        for chosen in (~graph.replayed, graph.replayed):
            frames = torch.nonzero(chosen).squeeze(-1)
            if not len(frames):
                continue
            part = _frames_of(graph, chosen)
            of = self.replayed(part) if chosen is graph.replayed else self.inner(part)
            energies = energies.index_add(0, frames, of.energies)
        return NetworkOutput(energies, descriptors)

    def replayed(self, graph: Graph) -> NetworkOutput:
        """Return the output for a graph of replayed frames alone."""
        weights = dict(zip(self.names, self.copies, strict=True))
        out: NetworkOutput = torch.func.functional_call(self.inner, weights, (graph,))
        return out


def campaign_network(network: Network) -> Network:
    """Return the network with the readouts of the campaign's level."""
    return network.inner if isinstance(network, ReplayHead) else network


def replayed_network(network: Network) -> Network:
    """Return the network with the readouts that replayed frames have."""
    if not isinstance(network, ReplayHead):
        return network
    inner = copy.deepcopy(network.inner)
    weights = dict(inner.named_parameters())
    with torch.no_grad():
        for name, values in zip(network.names, network.copies, strict=True):
            weights[name].copy_(values)
    return inner


def _frames_of(graph: Graph, chosen: Tensor) -> Graph:
    """Return the graph of some frames; chosen (frames,) are booleans."""
    atoms = chosen[graph.batch]
    edges = atoms[graph.edge_index[0]]
    place = torch.cumsum(atoms, 0) - 1
    frame = torch.cumsum(chosen, 0) - 1
    part = Data(
        z=graph.z[atoms],
        pos=graph.pos[atoms],
        edge_index=place[graph.edge_index[:, edges]],
        shift=graph.shift[edges],
        batch=frame[graph.batch[atoms]],
        charge=graph.charge[chosen],
        spin=graph.spin[chosen],
    )
    part.num_graphs = int(chosen.sum())
    return part
