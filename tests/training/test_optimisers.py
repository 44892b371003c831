"""Muon against a singular value decomposition, and against torch's own."""

import pytest
import torch

from alloop.training.optimisers import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16)])
def test_singular_values_become_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    found = orthogonalised(matrices)
    U, _, Vt = torch.linalg.svd(matrices, full_matrices=False)
    inner = U.mT @ found @ Vt.mT
    values = inner.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(inner, torch.diag_embed(values), atol=2e-3, rtol=0.0)


def test_wide_matrices_take_the_same_steps_in_fewer_products() -> None:
    torch.manual_seed(4)
    narrow = torch.randn(2, 16, 31) * torch.logspace(0, -4, 16)[None, :, None]
    padded = torch.nn.functional.pad(narrow, (0, 33))  # of zeros: the same matrix
    found = orthogonalised(padded)[:, :, :31]
    torch.testing.assert_close(found, orthogonalised(narrow), atol=1e-4, rtol=0.0)


def test_no_gradient_no_step() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 16, 20)), torch.zeros(2, 16, 20))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has none yet")
def test_steps_are_those_of_torch() -> None:
    torch.manual_seed(2)
    ours = [torch.nn.Parameter(torch.randn(16, 24)) for _ in range(2)]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in ours]
    options = {"lr": 0.02, "weight_decay": 0.1}
    muon = Muon([{"params": ours, **options}], momentum=0.95)
    other = torch.optim.Muon(
        theirs, momentum=0.95, adjust_lr_fn="match_rms_adamw", **options
    )
    for _ in range(5):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn(16, 24)
            two.grad = one.grad.clone()
        muon.step()
        other.step()
    for one, two in zip(ours, theirs, strict=True):  # torch iterates in bfloat16
        torch.testing.assert_close(one, two, atol=2e-3, rtol=0.0)


def test_matrices_of_many_shapes_and_rates() -> None:
    torch.manual_seed(3)
    shapes = [(16, 24), (24, 16), (16, 24)]
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    before = [weight.detach().clone() for weight in weights]
    groups = [
        {"params": weights[:2], "lr": 0.1},
        {"params": weights[2:], "lr": 0.0},
    ]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    Muon(groups).step()
    alone = torch.nn.Parameter(before[1].clone())
    alone.grad = weights[1].grad
    Muon([{"params": [alone], "lr": 0.1}]).step()
    torch.testing.assert_close(weights[1], alone)
    assert torch.equal(weights[2], before[2])
    assert not torch.equal(weights[0], before[0])
