import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.direct import DirectLabeller
from alloop.labels.gate import (
    check_electrons,
    check_geometry,
    check_result,
    refuse_frame,
)
from alloop.labels.levels import ase_level, pyscf_level
from alloop.labels.programs import level_tolerances
from alloop.labels.result import Refused, Result
from alloop.labels.tolerances import Tolerances, gate_problems
from alloop.labels.toy import toy_level
from tests.labels.label_faults import faulty_level

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
        (0, -2, "cannot have"),
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
    exact = level_tolerances(pyscf_level("ccsd(t)", "cc-pvdz"))
    grid = level_tolerances(pyscf_level("pbe", "def2-svp"))
    fixed = level_tolerances(pyscf_level("pbe", "def2-svp", grid_response=False))
    foreign = level_tolerances(ase_level("ase.calculators.emt.EMT"))
    assert exact.net_force == grid.net_force < fixed.net_force < foreign.net_force
    assert exact.torque < grid.torque == fixed.torque < foreign.torque


def gated(plain: Level, **gate: float) -> Level:
    return make_level(plain.kind, {**plain.settings, "gate": gate})


def test_a_level_moves_its_own_thresholds_and_is_another_level_then() -> None:
    plain = pyscf_level("pbe", "def2-svp")
    moved = gated(plain, net_force=0.3, slope=0.02)
    assert (level_tolerances(moved).net_force, level_tolerances(moved).slope) == (
        0.3,
        0.02,
    )
    assert level_tolerances(moved).torque == level_tolerances(plain).torque
    assert moved.id != plain.id


def test_a_gate_that_cannot_work_is_told_with_the_nearest_name() -> None:
    wrong = {"net_forc": 1.0, "torque": "much", "slope": 2, "force": True}
    problems = gate_problems({"gate": wrong})
    for words in ("net_force", "'much'", "0 to 1", "True"):
        assert any(words in problem for problem in problems)
    assert len(problems) == 4
    assert gate_problems({"gate": {"slope": 0.02}}) == gate_problems({}) == []
    with IsolatedLabeller(gated(toy_level(), sloep=1.0)) as labeller:
        assert "slope" in labeller.problems(["H"])[0]


@pytest.mark.parametrize("fault", ["scale", "flip"])
def test_sums_do_not_see_a_wrong_scale_or_sign_and_slopes_do(fault: str) -> None:
    frame = Frame(np.array([8, 1, 1]), np.array([[0, 0, 0], [0, 0.8, 0.5], [0, -1, 0]]))
    assert isinstance(DirectLabeller(faulty_level(fault)).label(frame), Label)
    outcome = DirectLabeller(faulty_level(fault, slope=1.0)).label(frame)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.GATE
    assert "disagree" in outcome.message
    good = DirectLabeller(gated(toy_level(), slope=1.0)).label(frame)
    assert good.details["slope_error"] < 1e-3


def test_the_share_of_tested_slopes_is_that_of_the_level_and_repeats() -> None:
    labeller = DirectLabeller(gated(toy_level(), slope=0.2))
    frames = [pair(0.7 + 1e-3 * n) for n in range(200)]
    tested = ["slope_error" in labeller.label(frame).details for frame in frames]
    assert 20 <= sum(tested) <= 60
    again = ["slope_error" in labeller.label(frame).details for frame in frames]
    assert tested == again


def test_what_may_be_off_in_the_table_is_off_that_much() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, (3, 3))
    rest = np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.8, 0.5]])
    frame = Frame(np.array([8, 1, 1]), rest + noise)
    sums = {}
    for name, asked in {
        "exact": pyscf_level("hf", "def2-svp", density_fit=True),
        "grid": pyscf_level("b3lyp", "6-31g", grid=1),
        "fixed": pyscf_level("b3lyp", "6-31g", grid=1, grid_response=False),
    }.items():
        forces = DirectLabeller(asked).label(frame).forces
        x = frame.positions - frame.positions.mean(axis=0)
        net, torque = forces.sum(axis=0), np.cross(x, forces).sum(axis=0)
        sums[name] = (np.linalg.norm(net), np.linalg.norm(torque))
    assert sums["exact"][0] < 1e-10 > sums["grid"][0]
    assert sums["exact"][1] < 1e-4
    assert 1e-4 < sums["fixed"][0] < 0.02
    assert 1e-4 < sums["grid"][1] < 0.05


def test_a_hopeless_molecule_is_refused_before_anything_runs() -> None:
    side = np.arange(4.0) * 3.0
    places = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    neon = Frame(np.full(64, 10), places)
    asked = pyscf_level("ccsd", "cc-pvdz")
    outcome = DirectLabeller(asked).label(neon)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.MEMORY
    assert "64 atoms with 896 functions" in outcome.message
    assert outcome.cpu_seconds < 10.0


def test_what_is_no_element_is_unsupported() -> None:
    ghost = Frame(np.array([0, 1]), np.array([[0, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(Refused) as caught:
        refuse_frame(ghost, toy_level())
    assert caught.value.failure is Failure.UNSUPPORTED


def test_a_single_atom_has_no_slope_to_test() -> None:
    # A quadrature grid sees how an open p shell lies, by 10 µeV: divided by the step,
    # that was a slope.
    level = gated(pyscf_level("b3lyp", "6-31g", grid=1), slope=1.0)
    atom = Frame(np.array([8]), np.array([[0.1, 0.2, 0.3]]), spin=2)
    label = DirectLabeller(level).label(atom)
    assert isinstance(label, Label)
    assert not label.forces.any()
