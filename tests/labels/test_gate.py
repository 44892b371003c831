import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.labels.gate import (
    Tolerances,
    check_electrons,
    check_geometry,
    check_result,
    refuse_frame,
    tolerances,
)
from alloop.labels.levels import ase_level, pyscf_level
from alloop.labels.outcome import Refused, Result
from alloop.labels.toy import toy_level

LIMITS = Tolerances()


def pair(distance: float, **more: object) -> Frame:
    return Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, distance]]), **more)


def test_hydrogen_at_its_bond_length_passes() -> None:
    assert check_geometry(pair(0.74), LIMITS) is None


@pytest.mark.parametrize("distance", [0.0, 1e-8, 1e-4, 0.01, 0.1, 0.3])
def test_atoms_on_top_of_each_other_are_refused_by_name(distance: float) -> None:
    assert "H0 and H1" in str(check_geometry(pair(distance), LIMITS))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_numbers_are_refused(value: float) -> None:
    assert "not finite" in str(check_geometry(pair(value), LIMITS))


def test_an_empty_frame_is_refused() -> None:
    empty = Frame(np.zeros(0, dtype=int), np.zeros((0, 3)))
    assert "no atoms" in str(check_geometry(empty, LIMITS))


def test_contacts_are_seen_through_the_walls_of_a_cell() -> None:
    cell = np.eye(3) * 5.0
    assert check_geometry(pair(4.9, cell=cell), LIMITS) is None
    through = pair(4.9, cell=cell, pbc=(False, False, True))
    assert "H0 and H1" in str(check_geometry(through, LIMITS))
    thin = np.diag([5.0, 5.0, 0.2])
    lonely = Frame(np.array([1]), np.zeros((1, 3)), cell=thin, pbc=(True,) * 3)
    assert "H0 and H0" in str(check_geometry(lonely, LIMITS))


@pytest.mark.parametrize(
    ("charge", "spin", "words"),
    [
        (0, 0, None),
        (0, 2, None),
        (1, 1, None),
        (-1, 1, None),
        (0, 1, "even"),
        (1, 0, "odd"),
        (2, 0, "leaves 0"),
        (0, 4, "cannot have"),
    ],
)
def test_charge_and_spin_must_fit_the_electrons(
    charge: int, spin: int, words: str | None
) -> None:
    problem = check_electrons(pair(0.74, charge=charge, spin=spin))
    assert problem is None if words is None else words in str(problem)


@given(arrays(float, (4, 3), elements=st.floats(-9, 9)), st.floats(-3, 3))
def test_central_forces_pass_and_a_push_or_a_twist_does_not(
    positions: np.ndarray, strength: float
) -> None:
    frame = Frame(np.array([6, 1, 1, 1]), positions)
    x = frame.positions
    central = strength * (x - x.mean(axis=0))  # no net force, no net torque
    assert check_result(frame, Result(0.0, central), LIMITS) is None
    push = central + np.array([0.1, 0.0, 0.0])
    assert "net force" in str(check_result(frame, Result(0.0, push), LIMITS))


def test_a_twist_is_refused_for_a_molecule_and_not_for_a_cell() -> None:
    numbers, x = np.array([1, 1]), np.array([[-1.0, 0, 0], [1.0, 0, 0]])
    twist = Result(0.0, np.array([[0, -0.4, 0], [0, 0.4, 0]]))
    assert "torque" in str(check_result(Frame(numbers, x), twist, LIMITS))
    cell = Frame(numbers, x, cell=np.eye(3) * 9, pbc=(True,) * 3)
    assert check_result(cell, twist, LIMITS) is None


def test_results_that_cannot_be_forces_of_the_frame_are_refused() -> None:
    frame = pair(0.74)
    huge = np.array([[0, 0, -200.0], [0, 0, 200.0]])
    cases = {
        "shape": Result(0.0, np.zeros((3, 3))),
        "finite": Result(np.nan, np.zeros((2, 3))),
        "not finite": Result(0.0, np.full((2, 3), np.inf)),
        "200": Result(0.0, huge),
    }
    for words, result in cases.items():
        assert words in str(check_result(frame, result, LIMITS))


def test_the_gate_is_tighter_where_there_is_no_grid() -> None:
    exact = tolerances(pyscf_level("ccsd(t)", "cc-pvdz"))
    grid = tolerances(pyscf_level("pbe", "def2-svp"))
    foreign = tolerances(ase_level("ase.calculators.emt.EMT"))
    assert exact.net_force < grid.net_force < foreign.net_force
    assert exact.torque < grid.torque < foreign.torque


def test_what_is_no_element_is_unsupported() -> None:
    ghost = Frame(np.array([0, 1]), np.array([[0, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(Refused) as caught:
        refuse_frame(ghost, toy_level())
    assert caught.value.failure is Failure.UNSUPPORTED
