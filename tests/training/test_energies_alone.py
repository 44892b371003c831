"""Labels that are energies alone: their loss, their error, the stages on them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.core.prediction_errors import frame_errors, prediction_errors
from alloop.core.records import Evaluation, LabelSet, TrainingData
from alloop.models.network import energy_and_forces
from alloop.training.graph_pool import force_scale, make_graph_pool
from alloop.training.label_changes import joined_labels
from alloop.training.losses import (
    EnergyLoss,
    LabelLoss,
    Targets,
    eager_gradients,
    force_loss,
)
from alloop.training.stage_state import StageTask, label_error
from alloop.training.stages import Schedule, asteroid_stages, standard_stages
from alloop.training.trainers.staged_trainer import (
    StagedTrainer,
    runnable_stages,
    unweighted_stages,
)
from tests.training.springs import SETTINGS, network, stage

LabelsOf = Callable[..., LabelSet]


def without_forces(labels: LabelSet) -> LabelSet:
    return replace(labels, forces=np.full_like(labels.forces, np.nan))


def test_atoms_without_a_force_do_not_count() -> None:
    forces = torch.tensor([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0], [0.0, -6.0, 8.0]])
    target = Targets(
        energies=torch.zeros(2),
        forces=torch.zeros(3, 3),
        weights=torch.tensor([0.5, 1.5]),
        owner=torch.tensor([0, 1, 0]),
        labelled=torch.tensor([1.0, 0.0, 1.0]),
    )
    assert force_loss(forces, target).item() == pytest.approx(0.5 * (5 + 10) / 2)
    nothing = replace(target, labelled=torch.zeros(3))
    assert force_loss(forces, nothing).item() == 0.0


def test_a_mixture_learns_forces_from_those_that_have_some(
    expensive: LabelsOf,
) -> None:
    some, more = expensive(4, "some"), without_forces(expensive(4, "more"))
    mixture = joined_labels(some, more)
    scale = force_scale(mixture)
    assert scale == force_scale(some)
    pool = make_graph_pool(mixture, scale, 4.0)
    task = StageTask(network(), pool, stage(batch=8), seed=0)
    assert task.loss == LabelLoss(task.schedule.energy)
    gradient = eager_gradients(network(), task.loss)(*task.batch_at(0))
    said = energy_and_forces(network(), pool.graph)
    alone = make_graph_pool(some, scale, 4.0)
    force = force_loss(said.forces[:8], alone.target)
    energy = (said.energies - pool.target.energies).abs().mean()
    by_hand = 0.95 * float(force) + 0.05 * float(energy)
    assert gradient.loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_energies_alone_need_no_force(expensive: LabelsOf) -> None:
    labels = without_forces(expensive(6))
    pool = make_graph_pool(labels, 1.0, 4.0)
    task = StageTask(network(), pool, stage(batch=6), seed=0)
    assert task.loss == EnergyLoss()
    loss = eager_gradients(network(), task.loss)(*task.batch_at(0)).loss.item()
    with torch.no_grad():
        energies = network()(pool.graph).energies
    off = (energies - pool.target.energies).double()
    assert loss == pytest.approx(float(off.abs().mean()), rel=1e-6)
    spread = float((off - off.mean()).abs().mean())
    assert label_error(network(), pool) == pytest.approx(spread, rel=1e-4)


def test_errors_are_those_of_energies(expensive: LabelsOf) -> None:
    labels = expensive(5)
    model = expensive(5)
    model = replace(model, energies=model.energies + np.arange(5.0))
    bare = without_forces(labels)
    errors = prediction_errors(model, bare)
    assert np.isnan(errors.force_mae)
    assert errors.energy_spread == pytest.approx(1.2)  # of 2, 1, 0, 1 and 2
    np.testing.assert_allclose(frame_errors(model, bare), [2, 1, 0, 1, 2], atol=1e-9)
    np.testing.assert_allclose(frame_errors(model, labels), 0.0)


def test_a_model_that_predicts_no_number_is_not_judged_by_energies() -> None:
    one, numbers = np.ones(1), np.zeros((2, 3))
    of_energies = Evaluation(("a",), one, numbers, one, 0.1, np.nan, np.nan)
    assert (of_energies.has_forces, of_energies.error) == (False, 0.1)
    diverged = replace(of_energies, forces=np.full((2, 3), np.nan))
    assert diverged.has_forces
    assert np.isnan(diverged.error)


def test_stages_on_energies_are_longer_and_slower_and_need_no_teacher(
    cheap: LabelsOf, expensive: LabelsOf
) -> None:
    data = TrainingData(cheap(8), without_forces(expensive(4)))
    pretraining, fine = runnable_stages(asteroid_stages((30, 270, 100)), data)
    assert (pretraining.on, pretraining.steps) == ("cheap", 300)
    assert pretraining.weights == "uniform"
    assert (fine.on, fine.steps) == ("expensive", 600)
    assert fine.schedule.lr == pytest.approx(1e-4)
    (alone,) = unweighted_stages(standard_stages(10))
    assert alone.steps == 60
    usual = TrainingData(cheap(8), expensive(4))
    stages = asteroid_stages((30, 270, 100))
    assert runnable_stages(stages, usual) == stages


def test_fine_tuning_on_energies_improves_forces_too(
    cheap: LabelsOf, expensive: LabelsOf
) -> None:
    stages = asteroid_stages(
        (0, 500, 100), Schedule(batch=5, compile=False), fine_tuning=1e-2
    )
    trainer = StagedTrainer("painn", SETTINGS, stages)
    test = expensive(40, "test")
    pretrained, _ = replace(trainer, stages=stages[1:2]).train(
        TrainingData(cheap(60), expensive(1)), None, 1
    )
    data = TrainingData(cheap(60), without_forces(expensive(20)))
    tuned, history = trainer.train(data, None, 1)
    before, after = (
        prediction_errors(x.predict(test.batch), test) for x in (pretrained, tuned)
    )
    assert after.force_mae < 0.4 * before.force_mae
    assert after.energy_spread < 0.4 * before.energy_spread
    assert "bias" not in history
