"""CHGNet, a universal potential: 94 elements, pretrained on crystals (GGA and GGA+U).

Deng et al., Nature Machine Intelligence 5, 1031 (2023); `pip install 'alloop[chgnet]'`
installs the package, which contains its weights. Only its layers and weights are used:
the graph is alloop's, so that molecules need no box (the network depends on distances
and angles only), neighbours are found once, and float64 is possible. Its reference
energies are left out; `alloop.training.trainers.universal` fits those of each level.
Its forces are exact gradients of a surface that is rough on the scale of 0.01 Å.

A bond is an edge without its direction; an angle is a pair of edges of the same centre.
The gated MLP of concatenated rows does without the concatenation: W [a_i; b_j; ...] + c
= (W_a a)_i + (W_b b)_j + ... + c, so that products are taken before rows are gathered,
of which there are many more (an atom has dozens of angles).

Another universal model is added in the same way: a `Network` that takes over the
foreign layers and weights, reads alloop's graph and gives eV without references, and a
record in `alloop.models.settings` whose `pretrained` names the package, elements and
charges. Trainer, checkpoints, MD, scorer and campaign files need nothing more.
"""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from alloop.core.errors import InputError
from alloop.models.graph import Graph, bond_angles, edge_vectors
from alloop.models.layers import AtomOutput, Network
from alloop.models.settings import CHGNetSettings
from alloop.models.universal.pretrained import require_choice

_WEIGHTS = {
    "0.3.0": "chgnet_0.3.0_e29f68s314m37.pth.tar",  # PBE and PBE+U
    "r2scan": "chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}
_EMBEDDINGS = (
    *("atom_embedding", "bond_embedding", "bond_weights_ag", "bond_weights_bg"),
    *("angle_embedding", "bond_basis_expansion", "angle_basis_expansion"),
)
_FROZEN = {
    "nothing": (),
    "embeddings": _EMBEDDINGS,
    "body": (*_EMBEDDINGS, "bond_conv_layers", "angle_layers", "atom_conv_layers"),
}
_SOFT = 1.0 - 1e-6  # keeps acos off ±1, as it did when the weights were trained
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


class _GraphFeatures(NamedTuple):
    """The features of a graph that the network reads.

    edges (2, edges) [neighbour, centre]; bond (edges,) of each edge; length (bonds,) Å;
    corner, first, second (angles,): the centre and the two bonds; turn (angles,) rad.
    """

    edges: Tensor
    bond: Tensor
    length: Tensor
    corner: Tensor
    first: Tensor
    second: Tensor
    turn: Tensor


class CHGNet(Network):
    """The pretrained network; energies in eV, 64 descriptors an atom.

    version: the version of its weights, "0.3.0" (PBE) or "r2scan". freeze: the part
    that training leaves unchanged: "nothing", "embeddings", or the "body" (all but the
    last convolution and the readout). It does not depend on charge and spin. Raises
    InputError where the package is missing.
    """

    readout_names = ("net.mlp.",)
    net: Any  # chgnet's module, whose layers are called here

    def __init__(self, settings: CHGNetSettings) -> None:
        require_choice("chgnet", "freeze", settings.freeze, _FROZEN)
        require_choice("chgnet", "version", settings.version, _WEIGHTS)
        arguments, state = _pretrained_weights(_WEIGHTS[settings.version])
        super().__init__(settings, float(arguments["atom_graph_cutoff"]))
        self.frozen: tuple[str, ...] = _FROZEN[settings.freeze]
        self.net = _build_network(arguments)
        self.net.load_state_dict(state)
        self.reach = float(arguments["bond_graph_cutoff"])  # Å, of bonds with angles
        self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all weights but the frozen ones, which stay frozen."""
        super().requires_grad_(requires_grad)
        for name in self.frozen:
            getattr(self.net, name).requires_grad_(False)
        if "atom_conv_layers" in self.frozen:
            self.net.atom_conv_layers[-1].requires_grad_(requires_grad)
        return self

    def is_traceable(self, graph: Graph) -> bool:  # noqa: ARG002
        return False  # its shapes depend on the positions

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        net, features = self.net, self._graph_features(graph)
        basis = net.bond_basis_expansion.rbf_expansion_ag(features.length)
        near = net.bond_weights_bg(
            net.bond_basis_expansion.rbf_expansion_bg(features.length)
        )
        around = near[features.first] * near[features.second]
        weights = net.bond_weights_ag(basis)[features.bond]
        v = net.atom_embedding(graph.z - 1)  # (atoms, 64)
        e = net.bond_embedding(basis)  # (bonds, 64)
        a = net.angle_embedding(
            net.angle_basis_expansion.fourier_expansion(features.turn)
        )
        last = len(net.bond_conv_layers) - 1
        for index, bending in enumerate(net.bond_conv_layers):
            v = _atom_convolution(net.atom_conv_layers[index], v, e, weights, features)
            e = _bond_convolution(bending, v, e, a, around=around, x=features)
            if index < last:  # the angles are not used after that
                a = a + gated_mlp(
                    net.angle_layers[index].twoBody_bond,
                    _angle_parts(v, e, a, features),
                )
        v = net.readout_norm(
            _atom_convolution(net.atom_conv_layers[-1], v, e, weights, features)
        )
        return AtomOutput(net.mlp(v).squeeze(-1), v)

    def _graph_features(self, graph: Graph) -> _GraphFeatures:
        vectors = edge_vectors(graph)
        r = torch.linalg.vector_norm(vectors, dim=-1)
        seen = torch.nonzero(r.detach() < self.cutoff).squeeze(-1)
        vectors, r = vectors[seen], r[seen]
        edges = graph.edge_index[:, seen]
        bonds = bond_graph(edges, graph.shift[seen])
        close = torch.nonzero(r.detach() < self.reach).squeeze(-1)
        i, j = bond_angles(edges[1, close])
        i, j = close[i], close[j]
        unit = vectors / r.unsqueeze(-1)
        turn = torch.acos((unit[i] * unit[j]).sum(dim=-1) * _SOFT)
        ends = (edges[1, i], bonds.of[i], bonds.of[j])
        return _GraphFeatures(edges, bonds.of, r[bonds.edge], *ends, turn)


def _atom_convolution(
    layer: Any, v: Tensor, e: Tensor, weights: Tensor, x: _GraphFeatures
) -> Tensor:
    """Return atoms (atoms, 64) after a convolution over their neighbours."""
    neighbour, centre = x.edges
    parts = (MLPPart(v, centre), MLPPart(e, x.bond), MLPPart(v, neighbour))
    messages = gated_mlp(layer.twoBody_atom, parts) * weights
    new: Tensor = layer.mlp_out(torch.zeros_like(v).index_add(0, centre, messages))
    return v + new


def _bond_convolution(
    layer: Any,
    v: Tensor,
    e: Tensor,
    a: Tensor,
    around: Tensor,
    x: _GraphFeatures,
) -> Tensor:
    """Return bonds (bonds, 64) after a convolution over their angles."""
    messages = gated_mlp(layer.twoBody_bond, _angle_parts(v, e, a, x)) * around
    new: Tensor = layer.mlp_out(torch.zeros_like(e).index_add(0, x.first, messages))
    return e + new


def _angle_parts(
    v: Tensor, e: Tensor, a: Tensor, x: _GraphFeatures
) -> tuple[MLPPart, ...]:
    return (
        MLPPart(e, x.first),
        MLPPart(e, x.second),
        MLPPart(a),
        MLPPart(v, x.corner),
    )


def require_package() -> None:
    """Raise InputError where the package chgnet is not installed."""
    if importlib.util.find_spec("chgnet") is None:
        raise InputError(
            "expected the package chgnet, which is not installed; "
            "pip install 'alloop[chgnet]'"
        )


@lru_cache
def _pretrained_weights(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the network's arguments and tensors; nothing in the file is executed."""
    require_package()
    spec = importlib.util.find_spec("chgnet")
    folders = [] if spec is None else spec.submodule_search_locations or []
    (file,) = [x for folder in folders for x in Path(folder).rglob(name)]
    model = torch.load(file, map_location="cpu", weights_only=True)["model"]
    state = model["state_dict"].items()
    weights = {k: v.float() for k, v in state if not k.startswith("composition_model.")}
    return {**model["model_args"], "composition_model": None}, weights


def _build_network(arguments: dict[str, Any]) -> nn.Module:
    from chgnet.model import CHGNet as PublishedCHGNet  # it takes seconds to import

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its size
        network: nn.Module = PublishedCHGNet(**arguments)
    return network
