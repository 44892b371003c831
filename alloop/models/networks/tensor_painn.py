"""PaiNN with second-rank tensors: atoms carry scalars, vectors and tensors.

The blocks are those of PaiNN (Schütt et al., ICML 2021, Figure 2) for features of rank
0, 1 and 2, as in the Cartesian tensor passing of Wang et al., Nature Communications 15,
7607 (2024). Scalars s are (atoms, F), vectors v (atoms, 3, F) and symmetric traceless
tensors t (atoms, 5, F), in the orthonormal basis of `direction_tensor`. Products of two
and three features of an atom couple the ranks, so that one layer already sees how four
atoms lie. docs/benchmarks/training.md compares it with PaiNN.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.layers import two_layer_mlp
from alloop.models.networks.painn import PaiNN

_MESSAGES = 5  # filters of an edge
_UPDATES = 8  # coefficients of an atom
_HALF, _SIXTH = math.sqrt(0.5), math.sqrt(1.0 / 6.0)


class Features(NamedTuple):
    """Features of atoms: s (atoms, F), v (atoms, 3, F) and t (atoms, 5, F)."""

    s: Tensor
    v: Tensor
    t: Tensor


class Directions(NamedTuple):
    """Directions of edges: unit vectors (edges, 3) and unit tensors (edges, 5)."""

    vectors: Tensor
    tensors: Tensor


class Message(nn.Module):
    """The message block: sums over neighbours j, with φ = MLP(s_j) and filters W.

    Δs = Σ φ_s W_s; Δv = Σ v_j φ_vv W_vv + φ_vs W_vs r̂; Δt likewise, with the tensor of
    the direction in place of r̂.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.phi = two_layer_mlp(channels, channels, _MESSAGES * channels)

    def forward(
        self, x: Features, W: Tensor, directions: Directions, edges: Tensor
    ) -> Features:
        senders, receivers = edges
        gates = self.phi(x.s).index_select(0, senders) * W
        ds, *of_ranks = gates.chunk(_MESSAGES, dim=-1)
        keep_v, turn_v, keep_t, turn_t = (part.unsqueeze(1) for part in of_ranks)
        unit, tensor = (part.unsqueeze(-1) for part in directions)
        dv = torch.addcmul(x.v.index_select(0, senders) * keep_v, unit, turn_v)
        dt = torch.addcmul(x.t.index_select(0, senders) * keep_t, tensor, turn_t)
        return Features(
            x.s + _sum_edges(ds, receivers, x.s),
            x.v + _sum_edges(dv, receivers, x.v),
            x.t + _sum_edges(dt, receivers, x.t),
        )


class Update(nn.Module):
    """The update block, with coefficients a = MLP(s, |Vv|, |Vt|).

    Δs = a_s + a_sv ⟨Uv, Vv⟩ + a_st ⟨Ut, Vt⟩ + a_svt ⟨Uv, Vt Vv⟩,
    Δv = a_v Uv + a_vt Vt Vv and Δt = a_t Ut + a_tv Uv ⊗ Vv. Lengths are softened.
    """

    def __init__(self, channels: int, softening: float) -> None:
        super().__init__()
        self.softening = softening
        self.vectors = nn.Linear(channels, 2 * channels, bias=False)
        self.tensors = nn.Linear(channels, 2 * channels, bias=False)
        self.a = two_layer_mlp(3 * channels, channels, _UPDATES * channels)

    def forward(self, x: Features) -> Features:
        Uv, Vv = self.vectors(x.v).chunk(2, dim=-1)  # (atoms, 3, F) each
        Ut, Vt = self.tensors(x.t).chunk(2, dim=-1)  # (atoms, 5, F) each
        lengths = [torch.sqrt((V * V).sum(dim=1) + self.softening) for V in (Vv, Vt)]
        a = self.a(torch.cat([x.s, *lengths], dim=-1)).unsqueeze(1)
        a_s, a_sv, a_st, a_svt, a_v, a_vt, a_t, a_tv = a.chunk(_UPDATES, dim=-1)
        turned = tensor_times_vector(Vt, Vv)
        ds = (
            a_s
            + a_sv * (Uv * Vv).sum(dim=1, keepdim=True)
            + a_st * (Ut * Vt).sum(dim=1, keepdim=True)
            + a_svt * (Uv * turned).sum(dim=1, keepdim=True)
        )
        return Features(
            x.s + ds.squeeze(1),
            x.v + a_v * Uv + a_vt * turned,
            x.t + a_t * Ut + a_tv * traceless_product(Uv, Vv),
        )


class TensorPaiNN(PaiNN):
    """The network: PaiNN with these blocks."""

    message_block = Message
    update_block = Update
    filters_of_edge = _MESSAGES
    compiled_saving = 19e-3  # ten frames of water: 28 ms a step, 8.5 ms compiled

    def first_features(self, s: Tensor) -> Features:
        atoms, channels = s.shape
        return Features(
            s, s.new_zeros(atoms, 3, channels), s.new_zeros(atoms, 5, channels)
        )

    def directions(self, unit: Tensor) -> Directions:
        return Directions(unit, direction_tensor(unit))


def direction_tensor(unit: Tensor) -> Tensor:
    """Return r̂r̂ᵀ less its trace as five numbers, scaled to length 1.

    Unit vectors (edges, 3) -> (edges, 5): xy, yz, zx, x² - y² and 3z² - 1, times
    factors that make the basis orthonormal.
    """
    return math.sqrt(1.5) * traceless_product(unit, unit)


def traceless_product(u: Tensor, v: Tensor) -> Tensor:
    """Return the symmetric traceless part of uvᵀ: (n, 3, ...) twice -> (n, 5, ...)."""
    (ux, uy, uz), (vx, vy, vz) = u.unbind(1), v.unbind(1)
    xx, yy, zz = ux * vx, uy * vy, uz * vz
    five = [
        _HALF * (ux * vy + uy * vx),
        _HALF * (uy * vz + uz * vy),
        _HALF * (uz * vx + ux * vz),
        _HALF * (xx - yy),
        _SIXTH * (2.0 * zz - xx - yy),
    ]
    return torch.stack(five, dim=1)


def tensor_times_vector(t: Tensor, v: Tensor) -> Tensor:
    """Return Tv, T symmetric and traceless: (n, 5, ...), (n, 3, ...) -> (n, 3, ...)."""
    xy, yz, zx, planar, axial = t.unbind(1)
    x, y, z = v.unbind(1)
    three = [
        (_HALF * planar - _SIXTH * axial) * x + _HALF * (xy * y + zx * z),
        (-_HALF * planar - _SIXTH * axial) * y + _HALF * (xy * x + yz * z),
        2.0 * _SIXTH * axial * z + _HALF * (zx * x + yz * y),
    ]
    return torch.stack(three, dim=1)


def _sum_edges(per_edge: Tensor, receivers: Tensor, like: Tensor) -> Tensor:
    """Sum over the edges that arrive at an atom; like: features of the atoms."""
    return torch.zeros_like(like).index_add(0, receivers, per_edge)
