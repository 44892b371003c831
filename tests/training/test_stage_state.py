"""The optimisers against torch's own, and their groups."""

import copy

import pytest
import torch

from alloop.models.network import build_network
from alloop.training.losses import LossGradient
from alloop.training.optimisers import (
    clip_gradients,
    mixing_matrices,
    parameter_groups,
)
from alloop.training.stage_state import StageState
from alloop.training.stages import Schedule, learning_rate

WIDE = {"channels": 16, "layers": 2, "radial": 3, "cutoff": 4.0}
SMALL = {"channels": 4, "layers": 2, "radial": 3, "cutoff": 4.0}


def gradients(network: torch.nn.Module, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(weight.shape, generator=generator)
        for weight in network.parameters()
    )


def test_a_walk_is_adam_on_clipped_gradients_with_an_average() -> None:
    schedule = Schedule(lr=1e-2, warmup=2, clip=3.0, ema=0.5, optimiser="adamw")
    state = StageState(build_network("painn", SMALL, seed=1), schedule)
    twin = copy.deepcopy(state.network)
    mean = [weight.detach().clone() for weight in twin.parameters()]
    adam = torch.optim.Adam(twin.parameters())
    for step in range(20):
        found = gradients(twin, step)
        state.descend(LossGradient(torch.tensor(0.0), found), step, 20)
        adam.param_groups[0]["lr"] = learning_rate(step, 20, schedule)
        for weight, gradient in zip(twin.parameters(), found, strict=True):
            weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 3.0)
        adam.step()
        keep = min(0.5, (step + 1) / (step + 10))
        for average, weight in zip(mean, twin.parameters(), strict=True):
            average.mul_(keep).add_(weight.detach(), alpha=1.0 - keep)
    for ours, true in zip(state.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, true)
    for ours, true in zip(state.average.parameters(), mean, strict=True):
        torch.testing.assert_close(ours, true)


def test_short_gradients_are_left_alone() -> None:
    found = (torch.tensor([3.0]), torch.tensor([[4.0]]))
    assert clip_gradients(found, 10.0) == found
    for ours, true in zip(clip_gradients(found, 1.0), (0.6, 0.8), strict=True):
        assert ours.item() == pytest.approx(true)


def test_a_lower_layer_moves_less() -> None:
    network = build_network("painn", SMALL, seed=1)
    names = [name for name, _ in network.named_parameters()]
    groups = parameter_groups(network, Schedule(layer_decay=0.5), names)
    factor = {id(w): group["factor"] for group in groups for w in group["params"]}
    by_name = {name: factor[id(w)] for name, w in network.named_parameters()}
    expected = {
        "embedding.element.weight": 0.125,
        "filters.weight": 0.125,
        "messages.0.phi.0.weight": 0.25,
        "updates.0.UV.weight": 0.25,
        "messages.1.phi.0.weight": 0.5,
        "readout.0.weight": 1.0,
    }
    assert {name: by_name[name] for name in expected} == expected


def test_matrices_alone_decay() -> None:
    network = build_network("painn", SMALL, seed=1)
    names = [name for name, _ in network.named_parameters()]
    groups = parameter_groups(network, Schedule(weight_decay=0.1), names)
    decay = {id(w): group["weight_decay"] for group in groups for w in group["params"]}
    for weight in network.parameters():
        assert decay[id(weight)] == (0.1 if weight.ndim > 1 else 0.0)


def test_a_frozen_weight_stays() -> None:
    network = build_network("painn", SMALL, seed=1)
    network.filters.weight.requires_grad_(False)
    before = network.filters.weight.clone()
    state = StageState(network, Schedule(warmup=1, weight_decay=0.1))
    free = [w for w in network.parameters() if w.requires_grad]
    ones = tuple(map(torch.ones_like, free))
    state.descend(LossGradient(torch.tensor(0.0), ones), 0, 10)
    assert torch.equal(state.network.filters.weight, before)
    assert not torch.equal(state.network.filters.bias, network.filters.bias)
    assert set(state.tensors()) & {"weight/filters.weight"} == set()


def test_muon_moves_what_mixes_features_and_adam_the_rest() -> None:
    network = build_network("painn", WIDE, seed=1)
    state = StageState(network, Schedule(lr=1e-2, warmup=1, ema=0.0))
    found = gradients(network, 3)
    state.descend(LossGradient(torch.tensor(0.0), found), 0, 10)
    rate = learning_rate(0, 10, state.schedule)
    moved = dict(state.network.named_parameters())
    for (name, before), slope in zip(network.named_parameters(), found, strict=True):
        step = (before - moved[name]).detach() / rate
        if name in mixing_matrices(network):
            values = torch.linalg.svdvals(step) / (0.2 * max(step.shape) ** 0.5)
            assert values.min() > 0.5
            assert values.max() < 1.3
        else:
            assert step.abs().max() < 1.001
            assert step.abs().median() == pytest.approx(1.0, abs=1e-2)
        assert (step * slope).sum() > 0.0


def test_what_mixes_features() -> None:
    names = mixing_matrices(build_network("painn", WIDE, seed=1))
    assert "updates.0.UV.weight" in names
    assert "messages.1.phi.2.weight" in names
    assert "embedding.element.weight" not in names  # a table
    assert "filters.weight" not in names  # from three functions of a distance
    assert "readout.2.weight" not in names  # to one energy
    assert not any(name.endswith("bias") for name in names)
    assert mixing_matrices(build_network("painn", SMALL, seed=1)) == []
