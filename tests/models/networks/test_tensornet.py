"""Nine numbers against the 3x3 matrices that they stand for."""

import torch
from torch import Tensor

from alloop.models.networks.tensornet import (
    anticommutator,
    direction_tensors,
    squared_norms,
    tensor_square,
)
from alloop.testing.potentials import fixed_rotation


def skew(v: Tensor) -> Tensor:
    x, y, z = v.unbind(dim=-1)
    o = torch.zeros_like(x)
    rows = [[o, -z, y], [z, o, -x], [-y, x, o]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix(x: Tensor) -> Tensor:
    """(n, 9) -> (n, 3, 3), from what `directed` says of unit vectors."""
    units = torch.nn.functional.normalize(
        torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator()), dim=1
    )
    eye = torch.eye(3, dtype=torch.float64)
    outer = units.unsqueeze(2) * units.unsqueeze(1)
    known = direction_tensors(units)
    whole = eye + skew(units) + outer - eye / 3.0
    basis = torch.linalg.lstsq(known, whole.flatten(1)).solution  # (9, 9)
    torch.testing.assert_close(known @ basis, whole.flatten(1))
    return (x @ basis).unflatten(1, (3, 3))


def some(seed: int) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(4, 9, dtype=torch.float64, generator=noise)


def test_squares_are_those_of_the_matrices() -> None:
    x = some(0)
    X = matrix(x)
    one = X.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * torch.eye(3)
    odd = (X - X.mT) / 2
    even = (X + X.mT) / 2 - one
    wanted = torch.stack([p.square().sum(dim=(1, 2)) for p in (one, odd, even)], dim=1)
    torch.testing.assert_close(squared_norms(x.unsqueeze(2)).squeeze(2), wanted)


def test_products_are_those_of_the_matrices() -> None:
    x, y = some(1), some(2)
    X, Y = matrix(x), matrix(y)
    found = anticommutator(x.unsqueeze(2), y.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(matrix(found), X @ Y + Y @ X)
    squared = tensor_square(x.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(matrix(squared), X @ X)


def test_directions_turn_with_the_vectors() -> None:
    R = torch.from_numpy(fixed_rotation())
    units = torch.nn.functional.normalize(some(3)[:, :3], dim=1)
    turned = matrix(direction_tensors(units @ R.T))
    torch.testing.assert_close(turned, R @ matrix(direction_tensors(units)) @ R.T)
