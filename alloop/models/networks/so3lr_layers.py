"""The layers of So3krates, on which SO3LR is built.

Frank, Unke, Müller and Chmiela, Nature Communications 15, 6539 (2024), gives the
equations. An atom has features (128,) and a vector (24,): real spherical harmonics of
degrees 1 to 4, of which only the lengths by degree are seen by the network.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alloop.models.layers import two_layer_mlp

FEATURES = 128
HEADS = 4
RADIAL = 32  # radial functions
DEGREES = (1, 2, 3, 4)
COMPONENTS = sum(2 * degree + 1 for degree in DEGREES)
_WIDTH = FEATURES // HEADS  # features of a head
_ANGULAR = FEATURES // 4  # hidden features of the filters' angular part
_EXCHANGED = FEATURES + len(DEGREES)  # features and lengths of a layer's end
_NEIGHBOURS = 13.168995780096482  # the mean number, by which sums are divided
_EPSILON = 1e-6  # of the layer norms, and of the weights of `StateEmbedding`
_DECAY = 0.944863062918464  # 1/Å, of the exponential in the radial functions
_LEAST = 1e-6  # the exponential is kept that far from 0 and 1
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
        x = torch.exp(-self.decay * r).clamp(_LEAST, 1.0 - _LEAST).unsqueeze(-1)
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
        asked, offered = torch.split(maps, [2 * _WIDTH, 3 * _WIDTH], dim=-1)
        asked = asked.index_select(0, edges.receiver)  # (edges, heads, 2 width)
        offered = offered.index_select(0, edges.sender)
        keys, values = torch.split(offered, [2 * _WIDTH, _WIDTH], dim=-1)
        one, other = torch.split(asked * keys, _WIDTH, dim=-1)
        by_feature, by_vector = self._filters(vectors, edges)
        envelope = edges.envelope / _NEIGHBOURS
        a = (one * by_feature).sum(-1) * envelope  # (edges, heads)
        b = (other * by_vector).sum(-1) * envelope  # (edges, degrees)
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
