"""SO3LR, a universal potential of molecules: H C N O F P S Cl, with charge and spin.

Kabylda et al., "Molecular simulations with a pretrained neural network and universal
pairwise force fields", ChemRxiv 10.26434/chemrxiv-2024-bdfr0 (2024): a So3krates
network that also predicts partial charges and the volumes of atoms, of which
electrostatics and dispersion are computed over all pairs. It was trained on PBE0 with
many-body dispersion.

Frank, Unke, Müller and Chmiela, Nature Communications 15, 6539 (2024), gives the
equations of So3krates. An atom has features (128,) and a vector (24,): real spherical
harmonics of degrees 1 to 4, of which only the lengths by degree are seen by the
network.

The weights are those that the package so3krates-torch installs (MIT). Its file, a
pickled module, is opened as tensors, and none of its code is imported: the network here
has the same function, so that a trained model opens without the package, graphs are
alloop's, and float64 is possible. The constant energy of each atom is left out.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from alloop.core.errors import InputError
from alloop.models.graph import Graph, edge_vectors, sum_frames
from alloop.models.layers import (
    AtomOutput,
    Network,
    NetworkOutput,
    cutoff_envelope,
    two_layer_mlp,
)
from alloop.models.settings import SO3LRSettings
from alloop.models.universal.long_range import (
    FREE_ATOMS,
    charge_energy,
    dispersion_energy,
    mixed_c6,
    repulsion_energy,
)
from alloop.models.universal.pretrained import require_choice
from alloop.models.universal.pretrained_files import package_file, pickled_tensors

CUTOFF = 4.5  # Å, of messages
ROWS = max(FREE_ATOMS) + 1  # of tables by atomic number
LAYERS = 3
FEATURES = 128
HEADS = 4
RADIAL = 32  # radial functions
DEGREES = (1, 2, 3, 4)
COMPONENTS = sum(2 * degree + 1 for degree in DEGREES)
_HALF = FEATURES // 2
_WIDTH = FEATURES // HEADS  # features of a head
_ANGULAR = FEATURES // 4  # hidden features of the filters' angular part
_EXCHANGED = FEATURES + len(DEGREES)  # features and lengths of a layer's end
_NEIGHBOURS = 13.168995780096482  # the mean number, by which sums are divided
_EPSILON = 1e-6  # of the layer norms, and of the weights of `StateEmbedding`
_DECAY = 0.944863062918464  # 1/Å, of the exponential in the radial functions
_MARGIN = 1e-6  # by which the exponential is kept from 0 and 1, so that logs are finite
_CROWDED = 40  # edges of an atom, above which those beyond the cutoff are left out
_EMBEDDINGS = ("element", "charge", "spin")
_FROZEN = {
    "nothing": (),
    "embeddings": _EMBEDDINGS,
    "body": (*_EMBEDDINGS, "layers"),
}
_SQUARES = (  # of the norms of the harmonics, times 4π
    *(3.0, 3.0, 3.0),
    *(15.0, 15.0, 1.25, 15.0, 3.75),
    *(4.375, 105.0, 2.625, 1.75, 2.625, 26.25, 4.375),
    *(78.75, 39.375, 11.25, 5.625, 0.140625, 5.625, 2.8125, 39.375, 4.921875),
)


class Edges(NamedTuple):
    """The edges that exchange messages.

    sender, receiver (edges,): atoms; basis (edges, 32): radial functions; envelope
    (edges, 1); harmonics (edges, 24).
    """

    sender: Tensor
    receiver: Tensor
    basis: Tensor
    envelope: Tensor
    harmonics: Tensor


class BernsteinBasis(nn.Module):
    """Bernstein polynomials of exp(-γ r): (edges, 32), as in PhysNet-like networks.

    Unke et al., Nature Communications 12, 7273 (2021), Eqs. 13 to 15.
    """

    binomials: Tensor
    powers: Tensor
    decay: Tensor

    def __init__(self) -> None:
        super().__init__()
        top = RADIAL - 1
        logs = [
            math.lgamma(top + 1) - math.lgamma(k + 1) - math.lgamma(top - k + 1)
            for k in range(RADIAL)
        ]
        self.register_buffer("binomials", torch.tensor(logs), persistent=False)
        powers = torch.arange(RADIAL, dtype=torch.float32)
        self.register_buffer("powers", powers, persistent=False)
        self.register_buffer("decay", torch.tensor(_DECAY), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        x = torch.exp(-self.decay * r).clamp(_MARGIN, 1.0 - _MARGIN).unsqueeze(-1)
        rest = (RADIAL - 1) - self.powers
        logs = self.powers * torch.log(x) + rest * torch.log(1.0 - x)
        return torch.exp(self.binomials + logs)


class Harmonics(nn.Module):
    """Real spherical harmonics of degrees 1 to 4 of unit vectors, (edges, 24).

    They have the usual norm: the squares of a degree l sum to (2l + 1)/4π.
    """

    norms: Tensor

    def __init__(self) -> None:
        super().__init__()
        squares = torch.tensor(_SQUARES, dtype=torch.float64) / (4.0 * math.pi)
        self.register_buffer("norms", squares.sqrt(), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        x, y, z = vectors.unbind(-1)
        xx, yy, zz, xy = x * x, y * y, z * z, x * y
        far, three, other = xx - yy, 3.0 * xx - yy, xx - 3.0 * yy
        five, seven, bent = 5.0 * zz - 1.0, 7.0 * zz - 1.0, z * (7.0 * zz - 3.0)
        pieces = (
            *(y, z, x),
            *(xy, y * z, 3.0 * zz - 1.0, x * z, far),
            *(y * three, xy * z, y * five, z * (five - 2.0)),
            *(x * five, far * z, x * other),
            *(xy * far, y * z * three, xy * seven, y * bent),
            zz * (35.0 * zz - 30.0) + 3.0,
            *(x * bent, far * seven, x * z * other, xx * other - yy * three),
        )
        return torch.stack(pieces, dim=-1) * self.norms


class DegreeNorms(nn.Module):
    """Squared lengths by degree l, divided by sqrt(2l + 1): (rows, 24) -> (rows, 4)."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        sums = torch.zeros(COMPONENTS, len(DEGREES))
        for column, degree in enumerate(DEGREES):
            sums[degree**2 - 1 : (degree + 1) ** 2 - 1, column] = (
                2 * degree + 1
            ) ** -0.5
        self.register_buffer("sums", sums, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        return (vectors * vectors) @ self.sums


class DegreeRepeats(nn.Module):
    """A factor by degree as a factor of each component: (rows, 4) -> (rows, 24)."""

    degree: Tensor

    def __init__(self) -> None:
        super().__init__()
        repeats = torch.tensor([2 * degree + 1 for degree in DEGREES])
        degree = torch.repeat_interleave(torch.arange(len(DEGREES)), repeats)
        self.register_buffer("degree", degree, persistent=False)

    def forward(self, factors: Tensor) -> Tensor:
        return factors.index_select(-1, self.degree)


class StateEmbedding(nn.Module):
    """The embedding of a charge, or of a number of unpaired electrons.

    It is distributed over the atoms of the frame by weights that depend on their
    elements (Unke et al., 2021, Eqs. 9 and 10).
    """

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.query = nn.Embedding(elements, FEATURES)
        self.key = nn.Parameter(torch.zeros(2, FEATURES))  # of numbers ≥ 0, and < 0
        self.value = nn.Parameter(torch.zeros(2, FEATURES))
        self.mlp = nn.Sequential(
            nn.SiLU(),
            nn.Linear(FEATURES, FEATURES, bias=False),
            nn.SiLU(),
            nn.Linear(FEATURES, FEATURES, bias=False),
        )

    def forward(self, state: Tensor, z: Tensor, frame: Tensor) -> Tensor:
        """Return (atoms, 128) for state (frames,), elements and frames of the atoms."""
        number = state.index_select(0, frame)  # (atoms,)
        sign = (number < 0).to(torch.int64)
        key = self.key.index_select(0, sign)
        products = (self.query(z) * key).sum(-1) / math.sqrt(FEATURES)
        weight = nn.functional.softplus(products)
        total = torch.zeros_like(state).index_add(0, frame, weight) + _EPSILON
        share = number * weight / total.index_select(0, frame)
        out = share.unsqueeze(-1) * self.value.index_select(0, sign)
        mixed: Tensor = self.mlp(out)
        return out + mixed


class AttentionLayer(nn.Module):
    """A layer of So3krates: attention among neighbours, then mixing in each atom.

    `mix` holds, for each head, the maps to queries of features and of vectors, keys of
    both, and values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(HEADS, _WIDTH, 5 * _WIDTH))
        self.radial = nn.Linear(RADIAL, 2 * FEATURES)
        self.angular = nn.Linear(len(DEGREES), 2 * _ANGULAR)
        self.feature_filter = nn.Linear(FEATURES + _ANGULAR, FEATURES)
        self.vector_filter = nn.Linear(FEATURES + _ANGULAR, FEATURES)
        self.norm = nn.LayerNorm(FEATURES, eps=_EPSILON)
        self.mlp = nn.Sequential(nn.SiLU(), two_layer_mlp(FEATURES, FEATURES, FEATURES))
        self.exchange = nn.Linear(_EXCHANGED, _EXCHANGED)
        self.last_norm = nn.LayerNorm(FEATURES, eps=_EPSILON)
        self.norms, self.repeats = DegreeNorms(), DegreeRepeats()

    def forward(
        self, x: Tensor, vectors: Tensor | None, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Return features (atoms, 128) and vectors (atoms, 24); None is for zero."""
        change, turned = self._attention(x, vectors, edges)
        x = self.norm(x + change)
        vectors = turned if vectors is None else vectors + turned
        x = x + self.mlp(x)
        both = self.exchange(torch.cat([x, self.norms(vectors)], dim=-1))
        change, factor = torch.split(both, [FEATURES, len(DEGREES)], dim=-1)
        return self.last_norm(x + change), vectors + self.repeats(factor) * vectors

    def _attention(
        self, x: Tensor, vectors: Tensor | None, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        heads = x.view(-1, HEADS, _WIDTH)
        maps = torch.einsum("nhd,hde->nhe", heads, self.mix)
        queries, sent = torch.split(maps, [2 * _WIDTH, 3 * _WIDTH], dim=-1)
        queries = queries.index_select(0, edges.receiver)  # (edges, heads, 2 width)
        sent = sent.index_select(0, edges.sender)
        keys, values = torch.split(sent, [2 * _WIDTH, _WIDTH], dim=-1)
        products, vector_products = torch.split(queries * keys, _WIDTH, dim=-1)
        by_feature, by_vector = self._filters(vectors, edges)
        envelope = edges.envelope / _NEIGHBOURS
        a = (products * by_feature).sum(-1) * envelope  # (edges, heads)
        b = (vector_products * by_vector).sum(-1) * envelope  # (edges, degrees)
        messages = (a.unsqueeze(-1) * values).flatten(1)
        arrows = self.repeats(b) * edges.harmonics
        none = x.new_zeros(len(x), COMPONENTS)
        return (
            torch.zeros_like(x).index_add(0, edges.receiver, messages),
            none.index_add(0, edges.receiver, arrows),
        )

    def _filters(self, vectors: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        """Return the filters of features and of vectors, each (edges, heads, width)."""
        silu = nn.functional.silu
        radial = silu(self.radial(edges.basis))
        if vectors is None:
            angular = silu(self.angular.bias).expand(len(radial), -1)
        else:
            there = vectors.index_select(0, edges.sender)
            between = there - vectors.index_select(0, edges.receiver)
            angular = silu(self.angular(self.norms(between)))
        r = torch.split(radial, FEATURES, dim=-1)
        a = torch.split(angular, _ANGULAR, dim=-1)
        shape = (-1, HEADS, _WIDTH)
        return (
            self.feature_filter(torch.cat([r[0], a[0]], dim=-1)).view(shape),
            self.vector_filter(torch.cat([r[1], a[1]], dim=-1)).view(shape),
        )


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

    readout_names = ("energy.", "energy_scale.")
    compiled_training = False  # compiled, they were off by more than rounding
    repulsion: Tensor
    free_atoms: Tensor

    def __init__(self, settings: SO3LRSettings) -> None:
        require_choice("so3lr", "freeze", settings.freeze, _FROZEN)
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
        shift = self.element_volume(graph.z).squeeze(-1)
        out: Tensor = (shift + products / math.sqrt(_HALF)).abs()
        return out

    def _embedding(self, graph: Graph) -> Tensor:
        z, frame = graph.z, graph.batch
        x: Tensor = self.element(z)
        x = x + self.charge(graph.charge, z, frame) + self.spin(graph.spin, z, frame)
        return x / math.sqrt(3.0)  # the sum of three keeps the variance of one

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
    return bool(graph.edge_index.shape[1] > _CROWDED * len(graph.z))


# --- pretrained weights --------------------------------------------------------------

_PACKAGE = "so3krates_torch"
_FILE = "pretrained/so3lr/so3lr.model"
_CLASSES = (
    *(
        f"{_PACKAGE}.blocks.{name}"
        for name in (
            "embedding.ChargeSpinEmbedding",
            "embedding.EuclideanEmbedding",
            "embedding.InvariantEmbedding",
            "euclidean_transformer.EuclideanAttentionBlock",
            "euclidean_transformer.EuclideanTransformer",
            "euclidean_transformer.FilterNet",
            "euclidean_transformer.InteractionBlock",
            "output_block.AtomicEnergyOutputHead",
            "output_block.DipoleVecOutputHead",
            "output_block.HirshfeldOutputHead",
            "output_block.PartialChargesOutputHead",
            "physical_potentials.DispersionInteraction",
            "physical_potentials.ElectrostaticInteraction",
            "physical_potentials.ZBLRepulsion",
            "radial_basis.BernsteinBasis",
            "radial_basis.ComputeRBF",
            "so3_conv_invariants.L0Contraction",
        )
    ),
    f"{_PACKAGE}.modules.cutoff.PhysNetCutoff",
    f"{_PACKAGE}.modules.models.SO3LR",
    f"{_PACKAGE}.modules.spherical_harmonics.RealSphericalHarmonics",
    "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.normalization.LayerNorm",
    "torch.nn.modules.sparse.Embedding",
)
_EXPONENTIALS = ("a1", "a2", "a3", "a4", "c1", "c2", "c3", "c4", "p", "d")


@lru_cache
def _pretrained_state() -> dict[str, Tensor]:
    """Return the network's state, from the names and shapes of so3krates-torch.

    Raises InputError where the package is missing or its file is another one.
    """
    tensors = pickled_tensors(package_file(_PACKAGE, _FILE, "so3lr"), _CLASSES)
    try:
        return _renamed_state(tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"expected the weights of SO3LR in {_PACKAGE}, got others ({error}); "
            "pip install 'alloop[so3lr]'"
        ) from error


def _renamed_state(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = {
        "energy.0": "atomic_energy_output_block.layers.0",
        "energy.2": "atomic_energy_output_block.final_layer",
        "partial_charge.0": "partial_charges_output_block.transform_inv_features.0",
        "partial_charge.2": "partial_charges_output_block.transform_inv_features.2",
        "volume.0": "hirshfeld_output_block.transform_features.0",
        "volume.2": "hirshfeld_output_block.transform_features.2",
    }
    tables = {
        "element_charge": "partial_charges_output_block.atomic_embedding",
        "element_volume": "hirshfeld_output_block.v_shift_embedding",
        "volume_query": "hirshfeld_output_block.q_embedding",
    }
    scale = "atomic_energy_output_block.energy_scales.weight"
    element = "inv_feature_embedding.embedding.weight"
    raw = [t[f"zbl_repulsion.{name}_raw"] for name in _EXPONENTIALS]
    state = {
        "element.weight": _by_element(t[element]),
        "energy_scale.weight": _by_element(t[scale]),
        "repulsion": softplus(torch.cat(raw)),
        **_state_embedding(t, "charge"),
        **_state_embedding(t, "spin"),
        **{f"{name}.weight": t[f"{x}.weight"][:ROWS] for name, x in tables.items()},
    }
    for name, x in heads.items():
        state |= {f"{name}.{part}": t[f"{x}.{part}"] for part in ("weight", "bias")}
    for index in range(LAYERS):
        stem = f"euclidean_transformers.{index}."
        inner = {k.removeprefix(stem): v for k, v in t.items() if k.startswith(stem)}
        state |= {f"layers.{index}.{k}": v for k, v in _layer(inner).items()}
    return state


def _by_element(columns: Tensor) -> Tensor:
    """Return a table by atomic number from columns that begin with hydrogen."""
    return torch.nn.functional.pad(columns[:, : ROWS - 1], (1, 0)).T


def _state_embedding(t: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    stem = f"{name}_embedding"
    return {
        f"{name}.query.weight": _by_element(t[f"{stem}.Wq.weight"]),
        f"{name}.key": t[f"{stem}.Wk"],
        f"{name}.value": t[f"{stem}.Wv"],
        f"{name}.mlp.1.weight": t[f"{stem}.mlp.1.weight"],
        f"{name}.mlp.3.weight": t[f"{stem}.mlp.3.weight"],
    }


def _layer(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a layer's tensors; those that are applied to the same rows are joined."""
    state: dict[str, Tensor] = {}
    nets = ("filter_net_inv", "filter_net_ev")
    for part in ("weight", "bias"):
        for name, x in (("radial", "mlp_rbf"), ("angular", "mlp_ev")):
            both = [t[f"{net}.{x}.0.{part}"] for net in nets]
            state[f"{name}.{part}"] = torch.cat(both)
        names = {
            "norm": "layer_norm_inv_1",
            "last_norm": "layer_norm_inv_2",
            "mlp.1.0": "mlp_1.1",
            "mlp.1.2": "mlp_1.3",
            "exchange": "interaction_block.linear_layer",
        }
        state |= {f"{name}.{part}": t[f"{x}.{part}"] for name, x in names.items()}
    for name, net in zip(("feature_filter", "vector_filter"), nets, strict=True):
        last = [f"{net}.mlp_{x}.mlp_{x}_layer_1.0" for x in ("rbf", "ev")]
        state[f"{name}.weight"] = torch.cat([t[f"{x}.weight"] for x in last], dim=1)
        state[f"{name}.bias"] = t[f"{last[0]}.bias"] + t[f"{last[1]}.bias"]
    maps = ("q_inv", "q_ev", "k_inv", "k_ev", "v_inv")
    block = "euclidean_attention_block.W_"
    state["mix"] = torch.cat([t[f"{block}{x}"] for x in maps], dim=-1)
    return state
