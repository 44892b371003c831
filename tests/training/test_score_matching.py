"""Score matching against an exact trace, and what it learns of thermal samples."""

from functools import partial

import pytest
import torch
from torch import Tensor

from alloop.core.errors import InputError
from alloop.core.units import BOLTZMANN
from alloop.models.graph import to_graph
from alloop.models.network import build_network
from alloop.training.graph_pool import make_graph_pool
from alloop.training.losses import (
    ScoreLoss,
    random_directions,
    score_loss,
    thermal_energy,
)

KT = thermal_energy(500.0)


def wells(x: Tensor) -> Tensor:
    """Coupled and anharmonic: E = Σ x⁴/4 + x₀·x₁ + 2 abs(x)²."""
    return (0.25 * x**4 + 2.0 * x * x).sum() + (x[0] * x[1]).sum()


def harmonic(k: Tensor | float, x: Tensor) -> Tensor:
    return 0.5 * k * (x * x).sum()


def exact(x: Tensor, kT: float) -> Tensor:
    """The loss with the whole trace of ∇F, by the Hessian."""
    hessian = torch.autograd.functional.hessian(wells, x)
    (gradient,) = torch.autograd.grad(wells(y := x.clone().requires_grad_()), y)
    trace = -hessian.reshape(x.numel(), x.numel()).trace()
    return (0.5 * (gradient**2).sum() + kT * trace) / len(x)


def test_kt_is_boltzmanns() -> None:
    assert thermal_energy(300.0) == pytest.approx(300.0 * BOLTZMANN)
    assert thermal_energy(300.0) == pytest.approx(0.02585, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -5.0, float("nan")])
def test_without_a_temperature_there_is_one_sentence(temperature: float) -> None:
    with pytest.raises(InputError, match="expected the temperature in K"):
        thermal_energy(temperature)


def test_unit_directions_give_the_exact_trace() -> None:
    x = torch.randn(3, 3, dtype=torch.float64, generator=_stream(1))
    along = torch.eye(9, dtype=torch.float64).reshape(9, 3, 3) * 3.0  # Σ e eᵀ = 9 mean
    assert score_loss(wells, x, KT, along).item() == pytest.approx(exact(x, KT).item())


def test_random_directions_estimate_the_trace() -> None:
    x = torch.randn(3, 3, dtype=torch.float64, generator=_stream(2))
    along = random_directions(x, 4000, _stream(3))
    assert set(along.unique().tolist()) == {-1.0, 1.0}
    found = score_loss(wells, x, 1.0, along).item()
    assert found == pytest.approx(exact(x, 1.0).item(), abs=0.1)


def test_the_loss_is_least_for_the_stiffness_of_the_sample() -> None:
    """Ornstein-Uhlenbeck positions of k = 7 eV/Å²: x ~ N(0, kT/k)."""
    k = 7.0
    x = torch.randn(4000, 3, dtype=torch.float64, generator=_stream(4))
    x = x * (KT / k) ** 0.5
    stiffness = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    for _ in range(60):
        well = partial(harmonic, stiffness)
        loss = score_loss(well, x, KT, random_directions(x, 1))
        (slope,) = torch.autograd.grad(loss, stiffness)
        curvature = 3.0 * KT / k  # of the loss: the mean of abs(x)²
        stiffness = (stiffness - 0.5 * slope / curvature).detach().requires_grad_()
    assert stiffness.item() == pytest.approx(k, rel=0.03)


def test_the_other_sign_of_the_force_would_learn_nothing() -> None:
    """With F = +∇E the trace pulls the stiffness below zero."""
    x = torch.randn(500, 3, dtype=torch.float64, generator=_stream(5)) * 0.1
    losses = [
        score_loss(partial(harmonic, k), x, KT, random_directions(x, 1))
        for k in (-1.0, 1.0)
    ]
    assert losses[1] < losses[0]


def test_a_network_is_scored_as_its_energy_is(cheap) -> None:
    network = build_network("painn", {"channels": 8, "layers": 1}, dtype=torch.float64)
    labels = cheap(3)
    graph = to_graph(labels.batch, network.cutoff, torch.float64)
    targets = make_graph_pool(labels, 1.0, network.cutoff, torch.float64).target
    objective = ScoreLoss(KT, noise=0.01, vectors=2)
    drawn = objective.draw(graph, _stream(6))
    again = objective.draw(graph, _stream(6))
    for ours, theirs in zip(drawn, again, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
    moved = labels.batch.with_positions(labels.batch.positions + drawn[1].numpy())

    def energy(x: Tensor) -> Tensor:
        there = to_graph(moved, network.cutoff, torch.float64)
        there.pos = x
        return network(there).energies

    found = objective(network, graph, targets, drawn)
    positions = torch.as_tensor(moved.positions)
    expected = score_loss(energy, positions, KT, drawn[0])
    assert found.item() == pytest.approx(expected.item())
    found.backward()
    slopes = [w.grad for w in network.parameters() if w.grad is not None]
    assert sum(float(slope.abs().sum()) for slope in slopes) > 0.0


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
