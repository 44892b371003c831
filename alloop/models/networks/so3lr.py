"""SO3LR, a universal potential of molecules: H C N O F P S Cl, with charge and spin.

Kabylda et al., "Molecular simulations with a pretrained neural network and universal
pairwise force fields", ChemRxiv 10.26434/chemrxiv-2024-bdfr0 (2024): a So3krates
network that also predicts partial charges and the volumes of atoms, of which
electrostatics and dispersion are computed over all pairs. It was trained on PBE0 with
many-body dispersion.

The weights are those that the package so3krates-torch installs (MIT). Its file, a
pickled module, is opened as tensors, and none of its code is imported: the network here
has the same function, so that a trained model opens without the package, graphs are
alloop's, and float64 is possible. The constant energy of each atom is left out.
"""

import math
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from alloop.core.errors import InputError
from alloop.models.graph import Graph, edge_vectors, sum_frames
from alloop.models.layers import (
    AtomOutput,
    Network,
    NetworkOutput,
    cutoff_envelope,
    two_layer_mlp,
)
from alloop.models.networks.long_range import (
    FREE_ATOMS,
    charge_energy,
    dispersion_energy,
    mixed_c6,
    repulsion_energy,
)
from alloop.models.networks.so3lr_layers import (
    FEATURES,
    AttentionLayer,
    BernsteinBasis,
    Edges,
    Harmonics,
    StateEmbedding,
)
from alloop.models.networks.so3lr_weights import pretrained_state
from alloop.models.settings import SO3LRSettings

CUTOFF = 4.5  # Å, of messages
ROWS = max(FREE_ATOMS) + 1  # of tables by atomic number
LAYERS = 3
_HALF = FEATURES // 2
_MANY = 40  # edges of an atom, above which those beyond the cutoff are left out
_EMBEDDINGS = ("element", "charge", "spin")
_FROZEN = {
    "nothing": (),
    "embeddings": _EMBEDDINGS,
    "body": (*_EMBEDDINGS, "layers"),
}


class _PairEnergies(NamedTuple):
    """Energies of pairs, and the atoms that they are counted to, both (pairs,)."""

    receiver: Tensor
    energies: Tensor


class SO3LR(Network):
    """The pretrained network; energies in eV, 128 descriptors an atom.

    long_range: the distance in Å at which electrostatics and dispersion end. freeze:
    the part that training leaves unchanged: "nothing", "embeddings" (of elements,
    charge and spin), or the "body" (all but the last layer and the readouts).
    """

    compiled_training = False  # compiled, they were off by more than rounding
    repulsion: Tensor
    free_atoms: Tensor

    def __init__(self, settings: SO3LRSettings) -> None:
        if settings.freeze not in _FROZEN:
            raise InputError(
                f"expected freeze of so3lr to be {' or '.join(_FROZEN)}, "
                f"got {settings.freeze!r}"
            )
        super().__init__(settings, max(settings.long_range, CUTOFF))
        self.frozen = _FROZEN[settings.freeze]
        self.long_range = settings.long_range
        self.element = nn.Embedding(ROWS, FEATURES)
        self.charge, self.spin = StateEmbedding(ROWS), StateEmbedding(ROWS)
        self.layers = nn.ModuleList(AttentionLayer() for _ in range(LAYERS))
        self.energy = two_layer_mlp(FEATURES, FEATURES, 1)
        self.energy_scale = nn.Embedding(ROWS, 1)
        self.partial_charge = two_layer_mlp(FEATURES, FEATURES, 1)
        self.element_charge = nn.Embedding(ROWS, 1)
        self.volume = two_layer_mlp(FEATURES, _HALF, _HALF)
        self.element_volume = nn.Embedding(ROWS, 1)
        self.volume_query = nn.Embedding(ROWS, _HALF)
        self.register_buffer("repulsion", torch.ones(10))
        free = [FREE_ATOMS.get(z, (1.0, 1.0)) for z in range(ROWS)]
        self.register_buffer("free_atoms", torch.tensor(free), persistent=False)
        self.basis, self.harmonics = BernsteinBasis(), Harmonics()
        self.requires_grad_()

    def load_pretrained(self) -> None:
        """Take the weights of the installed package; InputError where it is missing."""
        self.load_state_dict(_pretrained_state())

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all weights but the frozen ones, which stay frozen."""
        super().requires_grad_(requires_grad)
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)
        if "layers" in self.frozen:
            self.layers[-1].requires_grad_(requires_grad)
        return self

    def is_traceable(self, graph: Graph) -> bool:
        return not _has_many_edges(graph)

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        x, atoms, pairs, short = self._terms(graph)
        energies = atoms.index_add(0, pairs.receiver, pairs.energies)
        return AtomOutput(energies.index_add(0, short.receiver, short.energies), x)

    def forward(self, graph: Graph) -> NetworkOutput:
        x, atoms, pairs, short = self._terms(graph)
        energies = sum_frames(atoms, graph)  # summed in the order of stores that exist
        for term in (pairs, short):
            owner = graph.batch.index_select(0, term.receiver)
            energies = energies.index_add(0, owner, term.energies)
        return NetworkOutput(energies, x)

    def _terms(
        self, graph: Graph
    ) -> tuple[Tensor, Tensor, _PairEnergies, _PairEnergies]:
        """Return features, energies of atoms and those of pairs, far and near."""
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)
        x = self._embedding(graph)
        edges, near = self._edges(graph, vectors, r)
        arrows: Tensor | None = None
        for layer in self.layers:
            x, arrows = layer(x, arrows, edges)
        atoms = self.energy(x).squeeze(-1) * self.energy_scale(graph.z).squeeze(-1)
        far = _PairEnergies(graph.edge_index[1], self._long_range_energies(graph, x, r))
        short = self._repulsion(graph, edges, near)
        return x, atoms, far, _PairEnergies(edges.receiver, short)

    def partial_charges(self, graph: Graph, x: Tensor) -> Tensor:
        """Return charges (atoms,) in e that sum to each frame's own charge."""
        q = (self.partial_charge(x) + self.element_charge(graph.z)).squeeze(-1)
        sizes = sum_frames(torch.ones_like(q), graph)
        lacking = (graph.charge - sum_frames(q, graph)) / sizes
        out: Tensor = q + lacking.index_select(0, graph.batch)
        return out

    def volume_ratios(self, graph: Graph, x: Tensor) -> Tensor:
        """Return Hirshfeld volumes (atoms,) in units of those of free atoms."""
        products = (self.volume_query(graph.z) * self.volume(x)).sum(-1)
        own = self.element_volume(graph.z).squeeze(-1)
        out: Tensor = (own + products / math.sqrt(_HALF)).abs()
        return out

    def _embedding(self, graph: Graph) -> Tensor:
        given = (graph.z, graph.batch)
        x: Tensor = self.element(graph.z)
        x = x + self.charge(graph.charge, *given) + self.spin(graph.spin, *given)
        return x / math.sqrt(3.0)

    def _edges(self, graph: Graph, vectors: Tensor, r: Tensor) -> tuple[Edges, Tensor]:
        """Return the edges that exchange messages, and their lengths."""
        sender, receiver = graph.edge_index
        if _has_many_edges(graph):  # else all, so that no shape depends on r
            near = torch.nonzero(r.detach() < CUTOFF).squeeze(-1)
            sender, receiver = sender[near], receiver[near]
            vectors, r = vectors[near], r[near]
        harmonics = self.harmonics(vectors / r.unsqueeze(-1))
        envelope = cutoff_envelope(r, CUTOFF).unsqueeze(-1)
        return Edges(sender, receiver, self.basis(r), envelope, harmonics), r

    def _repulsion(self, graph: Graph, edges: Edges, r: Tensor) -> Tensor:
        z = graph.z.to(r.dtype)
        ends = z.index_select(0, edges.receiver), z.index_select(0, edges.sender)
        energy = repulsion_energy(r, *ends, self.repulsion)
        return energy * edges.envelope.squeeze(-1)

    def _long_range_energies(self, graph: Graph, x: Tensor, r: Tensor) -> Tensor:
        q, ratio = self.partial_charges(graph, x), self.volume_ratios(graph, x)
        a, c6 = self.free_atoms.index_select(0, graph.z).unbind(-1)
        sender, receiver = graph.edge_index
        of = torch.stack([q, a * ratio, c6 * ratio**2], dim=-1)
        q1, a1, c1 = of.index_select(0, receiver).unbind(-1)
        q2, a2, c2 = of.index_select(0, sender).unbind(-1)
        charges = charge_energy(r, q1 * q2, self.long_range)
        c = mixed_c6((a1, c1), (a2, c2))
        return charges + dispersion_energy(r, (a1, a2), c, self.long_range)


def _has_many_edges(graph: Graph) -> bool:
    return bool(graph.edge_index.shape[1] > _MANY * len(graph.z))


@lru_cache
def _pretrained_state() -> dict[str, Tensor]:
    return pretrained_state(ROWS, LAYERS)
