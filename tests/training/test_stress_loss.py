"""Training on the stress of cells: the loss, its gradient, and what is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Label, LabelSet, TrainingData
from alloop.core.stress import tensor_of_voigt, virial_per_atom, voigt
from alloop.models.graph import to_graph
from alloop.models.network import energy_forces_virial
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.potentials.repulsion import Zbl
from alloop.training.compiled_gradients import compile_gradients
from alloop.training.fit import fit_network
from alloop.training.graph_pool import make_graph_pool
from alloop.training.label_changes import (
    add_predictions,
    joined_labels,
    mixed_labels,
    scaled_labels,
    select_labels,
)
from alloop.training.losses import (
    CellLoss,
    LabelLoss,
    Targets,
    eager_gradients,
    virial_loss,
)
from alloop.training.stage_state import StageTask
from alloop.training.trainers.pairwise import PairwiseTrainer
from benchmarks.accuracy.asteroid.delta import DeltaPotential
from tests.models.kinds import small
from tests.training.springs import stage
from tests.training.test_compiled_gradients import gap, traced

__all__ = ["traced"]


def truth() -> PairwisePotential:
    """A pair potential of argon with a minimum near 3.8 Å."""
    basis = PairBasis((18,), radial=6, cutoff=6.0)
    return PairwisePotential(basis, np.array([0.0, 0.3, 0.9, -0.5, 0.6, -0.2, 0.1]))


def cells(count: int, seed: int = 0) -> list[Frame]:
    """Primitive cells of one atom, strained: no force ever acts."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        atoms = bulk("Ar", "fcc", a=5.3)
        strain = rng.normal(0.0, 0.03, (3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        found.append(from_atoms(atoms))
    return found


def labels(count: int = 6, seed: int = 0) -> LabelSet:
    frames = cells(count, seed)
    said = truth().predict(pack_frames(frames))
    forces = list(said.forces[:, None])
    stress = list(np.asarray(said.stress))
    return LabelSet.of(frames, said.energies, forces, stress)


def test_the_loss_is_the_weighted_mean_error_of_virials_per_atom() -> None:
    target = Targets(
        energies=torch.zeros(3),
        forces=torch.zeros(5, 3),
        weights=torch.tensor([0.5, 1.5, 1.0]),
        owner=torch.tensor([0, 0, 1, 2, 2]),
        virial=torch.tensor([[1.0] * 6, [0.0] * 6, [np.nan] * 6]),
    )
    predicted = torch.zeros(3, 3, 3)
    predicted[0] = 4.0  # 2 an atom, off by 1 everywhere
    predicted[1, 0, 1] = 6.0  # xy and yx are averaged: 3 in one of six places
    predicted[2] = 100.0  # has no label
    expected = (0.5 * 1.0 + 1.5 * 0.5) / 2
    assert virial_loss(predicted, target).item() == pytest.approx(expected)
    bare = replace(target, virial=None)
    assert virial_loss(predicted, bare).item() == 0.0


def test_the_gradient_by_weights_is_that_of_differences() -> None:
    net, loss = small("painn", cutoff=4.5), CellLoss(0.1, stress=0.7)
    frames = make_graph_pool(labels(), 0.3, 4.5, torch.float64)
    batch = (*frames.select(np.array([0, 3])), ())
    found = eager_gradients(net, loss)(*batch)
    plain = eager_gradients(net, LabelLoss(0.1))(*batch)
    assert gap(found.gradients, plain.gradients) > 0.1  # the stress counts
    weights = list(net.parameters())
    along = [
        torch.sin(torch.arange(w.numel(), dtype=w.dtype)).reshape(w.shape)
        for w in weights
    ]
    step, values = 1e-5, []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for weight, direction in zip(weights, along, strict=True):
                weight += sign * step * direction
        values.append(loss(net, *batch).item())
        with torch.no_grad():
            for weight, direction in zip(weights, along, strict=True):
                weight -= sign * step * direction
    slope = sum(
        float((g * d).sum()) for g, d in zip(found.gradients, along, strict=True)
    )
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_virials_go_through_a_program_too(traced) -> None:
    net, loss = small("painn", dtype=torch.float32, cutoff=4.5), CellLoss(0.1)
    frames = make_graph_pool(labels(), 0.3, 4.5)
    batch = (*frames.select(np.array([1, 2])), ())
    found = compile_gradients(net, loss, batch, True)(*batch)
    assert gap(found.gradients, eager_gradients(net, loss)(*batch).gradients) < 1e-5


def test_stress_alone_teaches_a_network_how_cells_resist() -> None:
    """Forces are zero by symmetry; energies are left out."""
    train, test = labels(8), labels(8, seed=1)
    wanted = np.asarray(test.stress)
    errors = []
    for weight in (0.0, 1.0):
        plan = stage(120, energy=0.0, stress=weight, lr=5e-3, ema=0.9, patience=None)
        frames = make_graph_pool(train, 0.1, 4.5)
        net, _ = fit_network(
            small("painn", dtype=torch.float32, cutoff=4.5), frames, plan, 0
        )
        said = LearnedPotential(net, {18: 0.0}, 0.1).predict(test.batch).stress
        errors.append(np.abs(np.asarray(said) - wanted).mean())
    assert errors[1] < 0.3 * np.abs(wanted).mean()
    assert errors[1] < 0.3 * errors[0]


def test_stress_alone_teaches_a_pair_potential_too() -> None:
    train, test = labels(12), labels(8, seed=1)
    wanted, nothing = np.asarray(test.stress), LabelSet.of([], [], [])
    errors = []
    for weight in (0.0, 1.0):
        trainer = PairwiseTrainer(6, 6.0, energy=0.0, ridge=1e-12, stress=weight)
        found, _ = trainer.train(TrainingData(nothing, train), None, 0)
        said = np.asarray(found.predict(test.batch).stress)
        errors.append(np.abs(said - wanted).mean() / np.abs(wanted).mean())
    assert errors[0] > 0.5
    assert errors[1] < 0.01


def test_a_pool_without_stress_is_trained_as_ever() -> None:
    bare = replace(labels(), stress=None)
    nowhere = replace(labels(), stress=np.full((6, 6), np.nan))
    plan = stage()
    net = small("painn", dtype=torch.float32, cutoff=4.5)
    for unstressed in (bare, nowhere):
        frames = make_graph_pool(unstressed, 1.0, 4.5)
        assert StageTask(net, frames, plan, 0).loss == LabelLoss(plan.schedule.energy)
    frames = make_graph_pool(labels(), 1.0, 4.5)
    own = StageTask(net, frames, plan, 0)
    off = StageTask(net, frames, stage(stress=0.0), 0)
    assert own.loss == CellLoss(plan.schedule.energy)
    assert off.loss == LabelLoss(plan.schedule.energy)
    assert own.fingerprint != off.fingerprint


def test_labels_keep_their_stress_when_they_are_changed() -> None:
    whole, stress = labels(), np.asarray(labels().stress)
    np.testing.assert_array_equal(
        select_labels(whole, np.array([4, 1])).stress, stress[[4, 1]]
    )
    np.testing.assert_array_equal(scaled_labels(whole, 2.0).stress, 2.0 * stress)
    nothing = add_predictions(whole, truth().predict(whole.batch), -1.0)
    np.testing.assert_allclose(nothing.stress, 0.0, atol=1e-15)
    bare = replace(whole, stress=None)
    joined = np.asarray(joined_labels(whole, bare).stress)
    np.testing.assert_array_equal(joined[:6], stress)
    assert np.isnan(joined[6:]).all()
    both, _ = mixed_labels(bare, whole, 0.5)
    np.testing.assert_array_equal(np.asarray(both.stress)[6:], stress)
    less = Zbl().without(whole)
    rest = np.asarray(Zbl().predict(whole.batch).stress)
    np.testing.assert_allclose(np.asarray(less.stress) + rest, stress)


def test_a_sum_of_potentials_has_the_sum_of_their_stresses() -> None:
    batch = pack_frames(cells(2))
    total = DeltaPotential(truth(), truth()).predict(batch)
    np.testing.assert_allclose(
        total.stress, 2.0 * np.asarray(truth().predict(batch).stress)
    )

    class Level:
        def label(self, frame: Frame) -> Label:
            said = truth().predict(pack_frames([frame]))
            return Label(
                frame.id, "x", 0.0, said.forces, stress=np.asarray(said.stress)[0]
            )

    found = LabellerPotential(Level()).predict(batch)
    np.testing.assert_array_equal(found.stress, truth().predict(batch).stress)


def test_the_virial_per_atom_is_that_of_the_network() -> None:
    net = small("painn", cutoff=4.5)
    batch = pack_frames([from_atoms(bulk("Ar", "fcc", a=5.3) * (2, 1, 1))])
    graph = to_graph(batch, net.cutoff, torch.float64)
    _, virial = energy_forces_virial(net, graph)
    stress = LearnedPotential(net, {18: 0.0}).predict(batch).stress
    mine = virial_per_atom(batch, np.asarray(stress))
    np.testing.assert_allclose(mine, voigt(virial.numpy()) / 2, atol=1e-12)
    np.testing.assert_allclose(voigt(tensor_of_voigt(mine)), mine)
