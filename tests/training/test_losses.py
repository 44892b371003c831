"""The losses against sums written out by hand."""

import pytest
import torch

from alloop.training.losses import Targets, energy_loss, force_loss, total_loss

FORCES = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, -6.0, 8.0]])
ENERGIES = torch.tensor([2.0, -1.0])


def target(weights: list[float]) -> Targets:
    return Targets(
        energies=torch.zeros(2),
        forces=torch.zeros(3, 3),
        weights=torch.tensor(weights),
        owner=torch.tensor([0, 0, 1]),
    )


@pytest.mark.parametrize(
    ("norm", "weights", "expected"),
    [
        ("l2", [1.0, 1.0], (5.0 + 0.0 + 10.0) / 3),
        ("l2", [0.5, 1.5], (2.5 + 0.0 + 15.0) / 3),
        ("l1", [1.0, 1.0], (7.0 + 14.0) / 9),
        ("l1", [0.5, 1.5], (3.5 + 21.0) / 9),
    ],
)
def test_the_force_loss_is_the_weighted_mean_over_atoms(
    norm: str, weights: list[float], expected: float
) -> None:
    assert force_loss(FORCES, target(weights), norm).item() == pytest.approx(expected)


def test_the_energy_loss_is_the_weighted_mean_over_frames() -> None:
    assert energy_loss(ENERGIES, target([0.5, 1.5])).item() == pytest.approx(1.25)


def test_rho_mixes_the_two() -> None:
    both = total_loss(ENERGIES, FORCES, target([1.0, 1.0]), (0.8, 0.2))
    assert both.item() == pytest.approx(0.8 * 5.0 + 0.2 * 1.5)


def test_a_perfect_atom_does_not_spoil_the_gradient() -> None:
    forces = FORCES.clone().requires_grad_(True)
    force_loss(forces, target([1.0, 1.0])).backward()
    assert forces.grad is not None
    torch.testing.assert_close(forces.grad[0], torch.tensor([0.2, 0.8 / 3, 0.0]))
    torch.testing.assert_close(forces.grad[1], torch.zeros(3))
