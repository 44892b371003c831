"""Layers of networks whose features are irreducible representations of rotations.

Features are a dictionary by degree l: tensors (atoms, 2l + 1, channels), with the
parity of spherical harmonics, (-1)^l. Weights have the sizes that e3nn's have (Geiger
and Smidt, arXiv 2207.09453): products are divided by the root of the number of inputs,
so that learning rates mean the same as there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Features: TypeAlias = dict[int, Tensor]


def dimension(degree: int) -> int:
    """Return the number of components of a degree, 2l + 1."""
    return 2 * degree + 1


def polynomial_envelope(r: Tensor, cutoff: Any, power: int) -> Tensor:
    """Return the polynomial of DimeNet (Gasteiger et al., 2020, Eq. 8), 0 beyond."""
    x, p = r / cutoff, power
    factors = (p + 1.0) * (p + 2.0) / 2.0, p * (p + 2.0), p * (p + 1.0) / 2.0
    inside = 1.0 - x**p * (factors[0] - x * (factors[1] - factors[2] * x))
    return torch.where(x < 1.0, inside, torch.zeros_like(inside))


class DegreeLinear(nn.Module):
    """A linear map of channels for each degree, without bias.

    widths: the numbers of channels before and after, by degree.
    """

    def __init__(self, widths: Mapping[int, tuple[int, int]]) -> None:
        super().__init__()
        self.degrees = tuple(sorted(widths))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(*widths[degree])) for degree in self.degrees
        )

    def forward(self, x: Features) -> Features:
        return {
            degree: x[degree] @ (weight / math.sqrt(weight.shape[0]))
            for degree, weight in zip(self.degrees, self.weights, strict=True)
        }


class ElementLinear(nn.Module):
    """A linear map of channels for each degree and element.

    The number of elements counts as inputs, as it does for products with one-hot rows.
    """

    def __init__(self, widths: Mapping[int, tuple[int, int]], elements: int) -> None:
        super().__init__()
        self.degrees = tuple(sorted(widths))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(elements, *widths[degree]))
            for degree in self.degrees
        )

    def forward(self, x: Features, element: Tensor) -> Features:
        """Return the maps of atoms whose elements are these indices (atoms,)."""
        out = {}
        for degree, weight in zip(self.degrees, self.weights, strict=True):
            scaled = weight / math.sqrt(weight.shape[0] * weight.shape[1])
            out[degree] = torch.bmm(x[degree], scaled.index_select(0, element))
        return out


class ScaledMLP(nn.Module):
    """Linear layers without bias, with SiLUs of unit second moment between them.

    scale: the factor after each SiLU that makes its mean square one.
    """

    def __init__(self, sizes: Sequence[int], scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(a, b)) for a, b in pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for index, weight in enumerate(self.weights):
            x = x @ (weight / math.sqrt(weight.shape[0]))
            if index < last:
                x = nn.functional.silu(x) * self.scale
        return x


def normed_mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers with layer norms and SiLUs between them."""
    parts: list[nn.Module] = []
    for index, (a, b) in enumerate(pairwise(sizes)):
        if index:
            parts += [nn.LayerNorm(a), nn.SiLU()]
        parts.append(nn.Linear(a, b))
    return nn.Sequential(*parts)


class Convolution(nn.Module):
    """The sum over neighbours of products of their features with harmonics.

    paths: the degrees of features, harmonics and result of each product, ordered by the
    last; widths: the channels of features by degree, as many as those of the results.
    Results of a degree stand side by side: (atoms, 2l + 1, sum of channels).
    """

    def __init__(
        self, paths: Sequence[Sequence[int]], widths: Mapping[int, int]
    ) -> None:
        super().__init__()
        self.paths = [(int(a), int(b), int(c)) for a, b, c in paths]
        self.sizes = [widths[a] for a, _, _ in self.paths]  # weights of each product
        for number, (a, b, c) in enumerate(self.paths):
            shape = (dimension(b), dimension(a) * dimension(c))
            self.register_buffer(f"coupling_{number}", torch.zeros(shape))

    def forward(
        self, x: Features, harmonics: Features, weights: Tensor, edges: Tensor
    ) -> Features:
        """Return sums over edges (2, edges) of [sender, receiver].

        harmonics: (edges, 2l + 1) by degree; weights (edges, sum of `sizes`).
        """
        sender, receiver = edges
        atoms = len(next(iter(x.values())))
        there = {degree: part.index_select(0, sender) for degree, part in x.items()}
        parts = torch.split(weights, self.sizes, dim=-1)
        sums: dict[int, list[Tensor]] = {}
        for number, (a, b, c) in enumerate(self.paths):
            coupling: Tensor = getattr(self, f"coupling_{number}")
            turned = (harmonics[b] @ coupling).view(-1, dimension(a), dimension(c))
            if a == 0:
                message = turned.transpose(1, 2) * there[a]
            else:
                message = torch.bmm(turned.transpose(1, 2), there[a])
            message = message * parts[number].unsqueeze(1)
            none = message.new_zeros(atoms, *message.shape[1:])
            sums.setdefault(c, []).append(none.index_add(0, receiver, message))
        return {degree: torch.cat(terms, dim=-1) for degree, terms in sums.items()}


class SymmetricTerm(nn.Module):
    """The products of `order` components of one atom's features, to one degree.

    Each product of components is taken once, in any order of the factors: `monomials`
    (order, products) lists the components, `coupling` (2l + 1 times paths, products)
    what each contributes to a path, and weights (elements, paths, channels) mix the
    paths.
    """

    monomials: Tensor
    coupling: Tensor

    def __init__(self, order: int, size: Mapping[str, int], degree: int) -> None:
        super().__init__()
        self.components = size["components"]
        self.degree, self.paths = degree, size["paths"]
        monomials = torch.zeros(order, size["products"], dtype=torch.int64)
        self.register_buffer("monomials", monomials)
        rows = dimension(degree) * self.paths
        self.register_buffer("coupling", torch.zeros(rows, size["products"]))
        self.weights = nn.Parameter(
            torch.zeros(size["elements"], self.paths, size["channels"])
        )
        hooked: Any = self
        hooked.register_load_state_dict_post_hook(_check_monomials)

    def forward(self, x: Tensor, element: Tensor) -> Tensor:
        """Return (2l + 1, atoms, channels) of components (components, atoms, ...)."""
        product = x.index_select(0, self.monomials[0])
        for factor in self.monomials[1:]:
            product = product * x.index_select(0, factor)
        paths = self.coupling @ product.flatten(1)
        paths = paths.view(dimension(self.degree), self.paths, *x.shape[1:])
        weights = self.weights.index_select(0, element).transpose(0, 1)
        return (paths * weights).sum(1)


def _check_monomials(term: Any, _: Any) -> None:
    """Raise ValueError for components that features do not have."""
    monomials = term.monomials
    low, high = int(monomials.min()), int(monomials.max())
    if low < 0 or high >= term.components:
        raise ValueError("a product of components that there are not")


class SymmetricContraction(nn.Module):
    """The sum of `SymmetricTerm`s of the orders 1, 2, ..., for each degree.

    terms: for each degree the sizes of the terms by order, as text.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.degrees = tuple(sorted(map(int, terms)))
        self.terms = nn.ModuleDict(
            {
                f"{degree}_{order}": SymmetricTerm(int(order), size, degree)
                for degree in self.degrees
                for order, size in sorted(terms[str(degree)].items())
            }
        )

    def forward(self, x: Features, element: Tensor) -> Features:
        """Return features by degree; element (atoms,): an index."""
        side_by_side = torch.cat([x[degree] for degree in sorted(x)], dim=1)
        components = side_by_side.transpose(0, 1).contiguous()
        sums: Features = {}
        for name, term in self.terms.items():
            degree = int(name.partition("_")[0])
            out = term(components, element)
            sums[degree] = sums[degree] + out if degree in sums else out
        return {degree: out.transpose(0, 1) for degree, out in sums.items()}


class Gate(nn.Module):
    """SiLU of scalars, and features of other degrees times a function of theirs.

    widths: the channels of the result by degree; scales: the factors after SiLU and
    after the function of gates, a sigmoid by default. The scalars of the features hold
    those that go on first, and then the gates of each degree.
    """

    def __init__(
        self,
        widths: Mapping[int, int],
        scales: Sequence[float],
        function: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        super().__init__()
        self.degrees = sorted(widths)
        self.sizes = [widths[degree] for degree in self.degrees]
        self.scales = tuple(scales)
        self.function = function

    def forward(self, x: Features) -> Features:
        scalars, *gates = torch.split(x[0], self.sizes, dim=-1)
        out = {0: nn.functional.silu(scalars) * self.scales[0]}
        for degree, gate in zip(self.degrees[1:], gates, strict=True):
            out[degree] = x[degree] * (self.function(gate) * self.scales[1])
        return out
