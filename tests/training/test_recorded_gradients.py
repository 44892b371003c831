"""Recorded gradients: torch's own bits, and torch itself where they do not fit."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from alloop.models.compilation import Code, NotCompiled
from alloop.models.network import Network, build_network
from alloop.training import compiled_gradients, fit
from alloop.training.compiled_gradients import record_gradients
from alloop.training.fit import fit_stage
from alloop.training.losses import LabelLoss, LossGradient, eager_gradients
from alloop.training.stage_state import StageTask
from tests.training.springs import bits, network, pool, stage

LOSS = LabelLoss(0.3)
BATCH = (*pool().select(np.arange(4)), ())


@pytest.fixture
def kept(monkeypatch) -> dict[object, Code]:
    """The recordings of this test alone."""
    recordings: dict[object, Code] = {}
    monkeypatch.setattr(compiled_gradients, "_recordings", recordings)
    return recordings


def same_bits(found: LossGradient, wanted: LossGradient) -> bool:
    pairs = zip(
        (found.loss, *found.gradients), (wanted.loss, *wanted.gradients), strict=True
    )
    return all(torch.equal(ours, true) for ours, true in pairs)


@pytest.mark.parametrize("kind", ["egnn", "tensor-painn"])
def test_a_recording_gives_the_bits_of_torch(kind: str) -> None:
    settings = {"channels": 8, "layers": 2, "radial": 4, "cutoff": 4.0}
    net, frames = build_network(kind, settings), pool()
    recorded = record_gradients(net, LOSS, (*frames.select(np.arange(4)), ()))
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1.1)  # as a step of training does, in place
    for start in range(4):
        batch = (*frames.select(np.arange(start, start + 4)), ())
        assert same_bits(recorded(*batch), eager_gradients(net, LOSS)(*batch))


def test_a_training_ends_at_the_same_bits(monkeypatch, kept) -> None:
    task = StageTask(network(), pool(), stage(40), 1)
    plain, curve = fit_stage(task)
    assert not kept
    monkeypatch.setattr(fit, "_WORTH_RECORDING", 40)
    found, again = fit_stage(task)
    assert len(kept) == 1
    assert bits(found) == bits(plain)
    assert again == curve


def test_one_recording_serves_all_weights_of_a_network(kept) -> None:
    for seed in range(3):
        net = network(seed)
        recorded = record_gradients(net, LOSS, BATCH)
        assert same_bits(recorded(*BATCH), eager_gradients(net, LOSS)(*BATCH))
    assert len(kept) == 1


def test_only_some_recordings_are_kept(monkeypatch, kept) -> None:
    monkeypatch.setattr(compiled_gradients, "record_function", lambda whole, _: whole)
    for rho in np.linspace(0.0, 1.0, 12):
        record_gradients(network(), LabelLoss(float(rho)), BATCH)
    assert len(kept) == 8


def test_other_shapes_are_left_to_torch(kept) -> None:
    net = network()
    recorded = record_gradients(net, LOSS, BATCH)
    other = (*pool().select(np.arange(3)), ())
    assert same_bits(recorded(*other), eager_gradients(net, LOSS)(*other))


def test_a_recording_with_other_bits_is_not_used(monkeypatch, kept) -> None:
    def rounded(function: Code, example: Sequence[Tensor]) -> Code:
        return lambda *flat: tuple(x * (1 + 1e-6) for x in function(*flat))

    monkeypatch.setattr(compiled_gradients, "record_function", rounded)
    with pytest.raises(NotCompiled, match="other bits"):
        record_gradients(network(), LOSS, BATCH)
    monkeypatch.setattr(fit, "_WORTH_RECORDING", 1)
    found, curve = fit_stage(StageTask(network(), pool(), stage(5), 1))
    assert curve.engine == "plain"
    monkeypatch.undo()
    plain, _ = fit_stage(StageTask(network(), pool(), stage(5), 1))
    assert bits(found) == bits(plain)


def test_a_network_that_cannot_be_traced_is_left_to_torch(kept) -> None:
    class Blind(type(network())):  # type: ignore[misc]
        def is_traceable(self, graph: object) -> bool:  # noqa: ARG002
            return False

    net: Network = network()
    net.__class__ = Blind
    with pytest.raises(NotCompiled, match="painn is not recorded"):
        record_gradients(net, LOSS, BATCH)
    assert not kept
