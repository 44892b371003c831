"""Five numbers against the symmetric traceless 3x3 matrices that they stand for."""

import torch
from torch import Tensor

from alloop.models.networks.tensor_painn import (
    direction_tensor,
    tensor_times_vector,
    traceless_product,
)


def some(seed: int, *shape: int) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=noise)


def matrices(t: Tensor) -> Tensor:
    """(n, 5) -> (n, 3, 3), column by column from products with unit vectors."""
    axes = torch.eye(3, dtype=torch.float64)
    columns = [tensor_times_vector(t, axis.expand(len(t), 3)) for axis in axes]
    return torch.stack(columns, dim=2)


def test_products_of_vectors_are_symmetric_and_traceless() -> None:
    u, v = some(0, 6, 3), some(1, 6, 3)
    outer = u.unsqueeze(2) * v.unsqueeze(1)
    even = (outer + outer.mT) / 2.0
    trace = even.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    wanted = even - trace * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(matrices(traceless_product(u, v)), wanted)


def test_the_five_numbers_keep_lengths_and_angles() -> None:
    a, b = some(2, 6, 5), some(3, 6, 5)
    inner = (matrices(a) * matrices(b)).sum(dim=(1, 2))
    torch.testing.assert_close((a * b).sum(dim=1), inner)


def test_directions_have_tensors_of_length_one() -> None:
    unit = torch.nn.functional.normalize(some(4, 6, 3), dim=1)
    lengths = direction_tensor(unit).square().sum(dim=1)
    torch.testing.assert_close(lengths, torch.ones(6, dtype=torch.float64))
    turned = tensor_times_vector(direction_tensor(unit), unit)
    torch.testing.assert_close(turned, (2.0 / 3.0) ** 0.5 * unit)
