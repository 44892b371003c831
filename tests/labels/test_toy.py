import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from tests.labels.label_faults import faulty_level

REST = np.array([[0, 0, 0], [0, 0.757, 0.587], [0, -0.757, 0.587]])


def energy(positions: np.ndarray, **parameters: float) -> float:
    frame = Frame(np.array([8, 1, 1]), positions)
    label = DirectLabeller(toy_level(**parameters)).label(frame)
    assert isinstance(label, Label), label
    return label.energy


@settings(max_examples=20, deadline=None)
@given(arrays(float, (3, 3), elements=st.floats(-0.1, 0.1)))
def test_forces_are_minus_the_energy_gradient(wiggle: np.ndarray) -> None:
    positions = REST + wiggle
    frame = Frame(np.array([8, 1, 1]), positions)
    forces = DirectLabeller(toy_level(stretch=0.02)).label(frame).forces
    step = 1e-4 * np.eye(9).reshape(9, 3, 3)
    slope = [
        (energy(positions + s, stretch=0.02) - energy(positions - s, stretch=0.02))
        / 2e-4
        for s in step
    ]
    np.testing.assert_allclose(forces.ravel(), -np.array(slope), atol=1e-4)


def test_water_is_bound_and_bent() -> None:
    bent = energy(REST)
    linear = energy(np.array([[0, 0, 0], [0, 0.96, 0], [0, -0.96, 0]]))
    apart = energy(np.array([[0, 0, 0], [0, 9.0, 0], [0, -9.0, 0]]))
    assert bent < linear < apart
    assert apart == pytest.approx(0.0, abs=1e-3)


def test_two_toy_levels_differ_by_a_smooth_bias() -> None:
    frame = Frame(np.array([8, 1, 1]), REST)
    cheap = DirectLabeller(toy_level()).label(frame)
    dear = DirectLabeller(toy_level(stiffness=1.1, stretch=0.02)).label(frame)
    assert cheap.level != dear.level
    assert 0.1 < np.abs(cheap.forces - dear.forces).max() < 2.0


def test_every_atom_shifts_the_energy_by_the_offset() -> None:
    assert energy(REST, offset=-5.0) == pytest.approx(energy(REST) - 15.0)


def test_a_stretched_frame_does_not_converge_if_so_asked() -> None:
    frame = Frame(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 2.0]]))
    outcome = DirectLabeller(toy_level(fail_above=1.8)).label(frame)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.NOT_CONVERGED


@pytest.mark.parametrize("fault", ["push", "nan"])
def test_wrong_gradients_do_not_pass_the_gate(fault: str) -> None:
    outcome = DirectLabeller(faulty_level(fault)).label(
        Frame(np.array([8, 1, 1]), REST)
    )
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.GATE


def test_burning_is_paid_for() -> None:
    frame = Frame(np.array([8, 1, 1]), REST)
    label = DirectLabeller(toy_level(burn=0.05)).label(frame)
    assert 0.05 <= label.cpu_seconds < 1.0
