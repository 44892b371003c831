"""What a stage learns from, with networks whose answers are known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from alloop.models.graph import Graph, edge_vectors
from alloop.models.layers import AtomOutput, Network
from alloop.models.settings import NetworkSettings
from alloop.training.bias_weights import Gamma
from alloop.training.label_changes import fit_references, without_references
from alloop.training.stages import Stage
from alloop.training.trainers.stage_runner import StageData, TrainedNetworks


class SpringSettings(NetworkSettings):
    kind = "spring"


class Spring(Network):
    """E = k/2 (r - rest)² of a diatomic, as a network in eV."""

    def __init__(self, k: float, rest: float) -> None:
        super().__init__(SpringSettings(), 5.0)
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))
        self.rest = rest

    def atom_outputs(self, graph: Graph) -> AtomOutput:
        r = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)  # each bond twice
        bonds = 0.25 * self.k * (r - self.rest) ** 2
        energies = bonds.new_zeros(len(graph.z)).index_add(
            0, graph.edge_index[0], bonds
        )
        return AtomOutput(energies, graph.pos)


CHEAP, EXPENSIVE = Spring(3.0, 0.83), Spring(4.0, 0.8)  # the levels themselves
BOTH = TrainedNetworks(teacher=EXPENSIVE, pupil=CHEAP)
PRETRAINING = Stage("pretraining", "cheap", 1)


@pytest.fixture
def desk(cheap, expensive) -> StageData:
    labels = {"cheap": cheap(12), "expensive": expensive(5)}
    rest = {k: without_references(v, fit_references(v)) for k, v in labels.items()}
    return StageData(rest, 1.0, Gamma(1.0), 0.3)


def expected(desk: StageData, network: Spring, level: str) -> np.ndarray:
    return desk.network_predictions(network, desk.labels[level]).forces


def test_plain_labels_are_learned_as_they_are(desk: StageData) -> None:
    lesson = desk.stage_labels(PRETRAINING, BOTH)
    assert lesson.labels is desk.labels["cheap"]
    np.testing.assert_array_equal(lesson.weights, np.ones(12))
    assert lesson.weighing is None


def test_a_frame_weighs_less_the_more_the_teacher_disagrees(desk: StageData) -> None:
    lesson = desk.stage_labels(replace(PRETRAINING, weights="bias"), BOTH)
    wrong = np.abs(expected(desk, EXPENSIVE, "cheap") - desk.labels["cheap"].forces)
    bias = wrong.reshape(12, 6).mean(axis=1)
    assert lesson.weighing is not None
    np.testing.assert_allclose(lesson.weighing.bias, bias)
    np.testing.assert_array_equal(np.argsort(-lesson.weights), np.argsort(bias))


def test_a_common_factor_is_no_bias_where_it_is_forgiven(desk: StageData) -> None:
    softer = {**desk.labels, "cheap": desk.labels["expensive"]}
    half = replace(softer["cheap"], forces=0.5 * softer["cheap"].forces)
    desk = replace(desk, labels={**softer, "cheap": half})
    plain, forgiven = (
        desk.stage_labels(replace(PRETRAINING, weights=weights), BOTH).weighing
        for weights in ("bias", "scaled")
    )
    assert plain is not None
    assert forgiven is not None
    assert plain.bias.max() > 0.05
    np.testing.assert_allclose(forgiven.bias, 0.0, atol=1e-7)


def test_scaled_labels_are_the_teachers_best_factor_of_the_cheap_ones(
    desk: StageData,
) -> None:
    cheap = desk.labels["cheap"]
    lesson = desk.stage_labels(replace(PRETRAINING, labels="scaled"), BOTH)
    wanted = expected(desk, EXPENSIVE, "cheap").reshape(-1, 1)
    (factor,) = np.linalg.lstsq(cheap.forces.reshape(-1, 1), wanted)[0]
    np.testing.assert_allclose(lesson.labels.forces, factor * cheap.forces)
    np.testing.assert_allclose(lesson.labels.energies, factor * cheap.energies)


def test_corrected_labels_are_the_expensive_levels_own(desk: StageData) -> None:
    stage = Stage("both", "both", 1, labels="corrected", mix=0.5)
    lesson = desk.stage_labels(stage, BOTH)
    forces = lesson.labels.forces[:24]
    np.testing.assert_allclose(forces, expected(desk, EXPENSIVE, "cheap"), atol=1e-6)
    np.testing.assert_array_equal(
        lesson.labels.forces[24:34], desk.labels["expensive"].forces
    )


def test_a_difference_is_what_the_expensive_level_adds(desk: StageData) -> None:
    stage = Stage("difference", "expensive", 1, "scratch", labels="difference")
    lesson = desk.stage_labels(stage, TrainedNetworks(pupil=CHEAP))
    labels = desk.labels["expensive"]
    wanted = labels.forces - expected(desk, CHEAP, "expensive")
    np.testing.assert_allclose(lesson.labels.forces, wanted)


def test_what_a_difference_learned_is_added_before_all_else(desk: StageData) -> None:
    change = Spring(0.5, 0.7)
    stage = Stage("student", "cheap", 1, labels="corrected")
    lesson = desk.stage_labels(stage, replace(BOTH, change=change))
    added = lesson.labels.forces - desk.labels["cheap"].forces
    np.testing.assert_allclose(added, expected(desk, change, "cheap"))


@pytest.mark.parametrize("labels", ["scaled", "corrected"])
def test_nobody_corrects_where_nobody_knows(desk: StageData, labels: str) -> None:
    lesson = desk.stage_labels(
        replace(PRETRAINING, labels=labels, weights="bias"), TrainedNetworks()
    )
    assert lesson.labels is desk.labels["cheap"]
    np.testing.assert_array_equal(lesson.weights, np.ones(12))
