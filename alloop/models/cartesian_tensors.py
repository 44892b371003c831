"""3x3 tensors per atom and channel, as nine numbers in an orthonormal basis.

x (atoms, 9, F) holds 1 number of I (a multiple of the identity), 3 of A (antisymmetric)
and 5 of S (symmetric and traceless). A rotation mixes numbers within a part only, and
the Frobenius norm |X|² is the sum of all squares.
"""

import math

import torch
from torch import Tensor

PARTS = [1, 3, 5]  # numbers in I, A and S


def irreducible_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Return I, A and S: (n, 1, F), (n, 3, F) and (n, 5, F)."""
    return torch.split(x, PARTS, dim=1)


def gated_parts(x: Tensor, gates: Tensor) -> Tensor:
    """Multiply I, A and S by their gates: (n, 9, F) and (n, 3, F) -> (n, 9, F)."""
    each = zip(irreducible_parts(x), torch.split(gates, 1, dim=1), strict=True)
    return torch.cat([part * gate for part, gate in each], dim=1)


def squared_norms(x: Tensor) -> Tensor:
    """Return |I|², |A|² and |S|²: (n, 9, F) -> (n, 3, F)."""
    return torch.stack(
        [(part * part).sum(dim=1) for part in irreducible_parts(x)], dim=1
    )


def direction_tensors(units: Tensor) -> Tensor:
    """Return the identity, r̂ as an antisymmetric tensor and r̂r̂ᵀ less its trace.

    Unit vectors (edges, 3) -> (edges, 9).
    """
    outer = units.unsqueeze(2) * units.unsqueeze(1)  # r̂r̂ᵀ (edges, 3, 3)
    one = torch.full_like(units[:, :1], math.sqrt(3.0))
    symmetric = outer.flatten(1) @ _BASIS[4:].T.to(units)
    return torch.cat([one, math.sqrt(2.0) * units, symmetric], dim=1)


def anticommutator(x: Tensor, y: Tensor) -> Tensor:
    """Return XY + YX, which is O(3)-equivariant, unlike XY: (atoms, 9, F)."""
    X, Y = _to_matrices(x), _to_matrices(y)
    left, right = torch.cat([X, Y], dim=-1), torch.cat([Y, X], dim=-1)
    one, other = torch.chunk(_matrix_product(left, right), 2, dim=-1)
    return _from_matrices(one + other)


def tensor_square(x: Tensor) -> Tensor:
    """Return X²: (atoms, 9, F)."""
    X = _to_matrices(x)
    return _from_matrices(_matrix_product(X, X))


def _to_matrices(x: Tensor) -> Tensor:
    """Convert (atoms, 9, F) to (atoms, 3, 3, F)."""
    flat = _BASIS.T.to(x) @ x
    return flat.view(x.shape[0], 3, 3, x.shape[2])


def _from_matrices(X: Tensor) -> Tensor:
    """Convert (atoms, 3, 3, F) to (atoms, 9, F)."""
    return _BASIS.to(X) @ X.flatten(1, 2)


def _matrix_product(X: Tensor, Y: Tensor) -> Tensor:
    """Return the matrix product of each atom and channel by three outer products."""
    columns = [column.unsqueeze(2) for column in X.unbind(dim=2)]  # (atoms, 3, 1, F)
    rows = [row.unsqueeze(1) for row in Y.unbind(dim=1)]  # (atoms, 1, 3, F)
    out = columns[0] * rows[0]
    for column, row in zip(columns[1:], rows[1:], strict=True):
        out = torch.addcmul(out, column, row)
    return out


def _orthonormal_basis() -> Tensor:
    """Return nine orthonormal 3x3 matrices, flat: (9, 9) in float64."""
    e = torch.eye(3, dtype=torch.float64)
    pairs = [(0, 1), (1, 2), (2, 0)]
    outer = [torch.outer(e[i], e[j]) for i, j in pairs]
    turns = [(m.T - m) / math.sqrt(2.0) for m in (outer[1], outer[2], outer[0])]
    mixed = [(m + m.T) / math.sqrt(2.0) for m in outer]
    planar = torch.diag(e[0] - e[1]) / math.sqrt(2.0)
    axial = torch.diag(2.0 * e[2] - e[0] - e[1]) / math.sqrt(6.0)
    whole = [torch.diag(e.sum(dim=0)) / math.sqrt(3.0), *turns, *mixed, planar, axial]
    return torch.stack(whole).flatten(1)


_BASIS = _orthonormal_basis()
