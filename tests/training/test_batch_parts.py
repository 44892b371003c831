"""Batches that exceed the memory: parts whose losses and gradients add up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.training.fit import batch_gradient, fit_stage
from alloop.training.graph_pool import GraphPool, make_graph_pool
from alloop.training.losses import (
    CellLoss,
    EnergyLoss,
    LabelLoss,
    Objective,
    ScoreLoss,
    eager_gradients,
)
from alloop.training.stage_state import StageState, StageTask
from tests.models.kinds import LittleMemory, small
from tests.training.springs import network, stage
from tests.training.test_resume import Halted, Memory


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> type[LittleMemory]:
    monkeypatch.setattr(LittleMemory, "most", 7)
    monkeypatch.setattr(LittleMemory, "tried", ())
    return LittleMemory


def chains(periodic: bool = False) -> GraphPool:
    """Seven chains of hydrogen of 2 to 5 atoms with labels of all sorts."""
    rng = np.random.default_rng(5)
    box = {"cell": 12.0 * np.eye(3), "pbc": (True, True, True)} if periodic else {}
    frames, forces, stress = [], [], []
    for size in (2, 5, 3, 4, 2, 5, 3):
        line = np.arange(size)[:, None] * np.array([0.9, 0.2, 0.1])
        where = line + rng.normal(0.0, 0.05, (size, 3))
        frames.append(Frame(np.ones(size, int), where, **box))
        forces.append(rng.normal(size=(size, 3)))
        stress.append(rng.normal(size=6))
    forces[2][:], stress[4][:] = np.nan, np.nan
    labels = LabelSet.of(
        frames, rng.normal(size=7), forces, stress if periodic else [None] * 7
    )
    pool = make_graph_pool(labels, 0.7, 4.0, torch.float64)
    return pool.with_weights(np.array([0.5, 1.5, 1.0, 2.0, 0.2, 0.8, 1.0]))


def gap(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> float:
    pairs = zip(some, others, strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize(
    "loss",
    [LabelLoss(0.3), LabelLoss(0.3, "l1"), EnergyLoss(), ScoreLoss(0.1, 0.05, 2)],
    ids=["labels", "components", "energies", "score"],
)
def test_losses_and_gradients_of_parts_add_up(loss: Objective, parts: int) -> None:
    check_sums(chains(), loss, parts)


@pytest.mark.parametrize("parts", [2, 7])
def test_those_of_cells_do(parts: int) -> None:
    check_sums(chains(periodic=True), CellLoss(0.3, stress=0.4), parts)


def check_sums(pool: GraphPool, loss: Objective, parts: int) -> None:
    net = small("painn", cutoff=4.0)
    task = StageTask(net, pool, stage(batch=7), seed=1, objective=loss)
    gradients = eager_gradients(net, loss)
    whole = gradients(*task.batch_at(0))
    pieces = [gradients(*part) for part in task.parts_at(0, parts)]
    assert len(pieces) == parts
    total = sum(piece.loss for piece in pieces)
    assert float(total) == pytest.approx(float(whole.loss), rel=1e-12)
    sums = tuple(sum(x) for x in zip(*(p.gradients for p in pieces), strict=True))
    assert gap(sums, whole.gradients) < 1e-12
    assert max(float(x.abs().max()) for x in whole.gradients) > 1e-3


def test_a_batch_is_divided_until_it_fits(little_memory: type[LittleMemory]) -> None:
    net = small("painn", cutoff=4.0)
    task = StageTask(net, chains(), stage(batch=7), seed=1)
    whole = eager_gradients(net, task.loss)(*task.batch_at(0))
    net.__class__ = little_memory
    state = StageState(net, task.schedule)
    gradients = eager_gradients(state.network, task.loss)
    parted = batch_gradient(task, state, gradients, 0)
    assert gap(parted.gradients, whole.gradients) < 1e-12
    assert float(parted.loss) == pytest.approx(float(whole.loss), rel=1e-12)
    assert little_memory.tried[0] == 24
    assert state.engine == "plain, in 4 parts, since a batch exceeds the memory"
    little_memory.tried = ()
    batch_gradient(task, state, gradients, 1)
    assert max(little_memory.tried) <= little_memory.most  # what fitted is remembered
    assert sum(little_memory.tried) == 24


def test_a_training_in_parts_learns_the_same_and_resumes_in_parts(
    little_memory: type[LittleMemory],
) -> None:
    pool, net = chains(), small("painn", cutoff=4.0)
    task = StageTask(net, pool, stage(12, batch=7, patience=None), seed=1)
    whole, curve = fit_stage(task)
    net.__class__ = little_memory
    memory = Memory(halt=6)
    with pytest.raises(Halted):
        fit_stage(task, memory)
    little_memory.tried = ()
    memory.halt = None
    parted, resumed = fit_stage(task, memory)
    assert max(little_memory.tried) <= little_memory.most
    assert resumed.engine.startswith("plain, in 4 parts")
    pairs = zip(whole.parameters(), parted.parameters(), strict=True)
    assert gap(*zip(*pairs, strict=True)) < 1e-9
    np.testing.assert_allclose(resumed.losses, curve.losses, rtol=1e-9)


def test_a_state_saved_before_there_were_parts_is_loaded() -> None:
    task = StageTask(network(), chains(), stage(batch=7), seed=1)
    saved = StageState(task.network, task.schedule).save()
    progressed = dict(saved.settings["progressed"])
    del progressed["parts"]
    old = replace(saved, settings={**saved.settings, "progressed": progressed})
    state = StageState(task.network, task.schedule)
    state.load(old)
    assert state.parts == 1


def test_a_frame_that_does_not_fit_is_refused(
    little_memory: type[LittleMemory],
) -> None:
    net = small("painn", cutoff=4.0)
    net.__class__ = little_memory
    little_memory.most = 4
    task = StageTask(net, chains(), stage(batch=7), seed=1)
    with pytest.raises(InputError, match="a frame that fits into the memory of cpu"):
        fit_stage(task)
