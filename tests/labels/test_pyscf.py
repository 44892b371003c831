import subprocess
import sys

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.units import HARTREE
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.levels import pyscf_level

STEP = 1e-3  # Å
CLOSED = {
    "hf": pyscf_level("hf", "6-31g"),
    "hf-df": pyscf_level("hf", "def2-svp", density_fit=True),
    "b3lyp-df": pyscf_level("b3lyp", "6-31g", density_fit=True, grid=0),
    "pbe-d3bj": pyscf_level("pbe", "sto-3g", dispersion="d3bj", grid=0),
    "mp2": pyscf_level("mp2", "6-31g", frozen_core=True),
    "ccsd": pyscf_level("ccsd", "sto-3g"),
    "ccsd(t)": pyscf_level("ccsd(t)", "6-31g", frozen_core=True),
}
OPEN = {
    "uhf": pyscf_level("hf", "6-31g"),
    "uks": pyscf_level("pbe", "6-31g", grid=0),
    "ump2": pyscf_level("mp2", "6-31g"),
    "uccsd": pyscf_level("ccsd", "sto-3g", frozen_core=True),
    "uccsd(t)": pyscf_level("ccsd(t)", "6-31g", frozen_core=True),
}


def labelled(child: LabelChild, level: Level, frame: Frame) -> Label:
    label = child.labeller(level).label(frame)
    assert isinstance(label, Label), label
    return label


def refused(child: LabelChild, level: Level, frame: Frame) -> Unlabelled:
    outcome = child.labeller(level).label(frame)
    assert isinstance(outcome, Unlabelled), outcome
    return outcome


def slope(
    child: LabelChild, level: Level, frame: Frame, direction: np.ndarray
) -> float:
    energies = [
        labelled(
            child,
            level,
            Frame(
                frame.numbers,
                frame.positions + side * STEP * direction,
                frame.charge,
                frame.spin,
            ),
        ).energy
        for side in (1, -1)
    ]
    return (energies[0] - energies[1]) / (2 * STEP)


def assert_forces_are_the_slope(child: LabelChild, level: Level, frame: Frame) -> None:
    direction = np.random.default_rng(3).standard_normal((len(frame), 3))
    direction /= np.linalg.norm(direction)
    forces = labelled(child, level, frame).forces
    expected = slope(child, level, frame, direction)
    assert -(forces * direction).sum() == pytest.approx(expected, abs=4e-4)


@pytest.mark.parametrize("name", CLOSED)
def test_forces_of_closed_shells_are_minus_the_slope_of_the_energy(
    child: LabelChild, water: Frame, name: str
) -> None:
    assert_forces_are_the_slope(child, CLOSED[name], water)


@pytest.mark.parametrize("name", OPEN)
def test_forces_of_open_shells_are_minus_the_slope_of_the_energy(
    child: LabelChild, hydroxyl: Frame, name: str
) -> None:
    assert_forces_are_the_slope(child, OPEN[name], hydroxyl)


def test_hydrogen_in_the_minimal_basis_has_the_textbook_energy(
    child: LabelChild,
) -> None:
    # Szabo and Ostlund, Modern Quantum Chemistry, table 3.11: -1.117 hartree.
    bohr, hartree = 0.529177, 27.2114
    pair = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.4 * bohr]]))
    energy = labelled(child, pyscf_level("hf", "sto-3g"), pair).energy
    assert energy == pytest.approx(-1.1167 * hartree, abs=2e-3)


def test_far_ions_attract_each_other_as_coulomb_says(child: LabelChild) -> None:
    # Li+ (1s²) and a bare proton, too far apart to overlap: F = 1/r² hartree/bohr.
    frame = Frame(np.array([3, 1]), np.array([[0, 0, 0], [0, 0, 12.0]]), charge=2)
    forces = labelled(child, pyscf_level("hf", "sto-3g"), frame).forces
    expected = 27.2114 * 0.529177 / 12.0**2  # e²/(4πε0) = 14.3996 eV Å
    assert forces[1, 2] == pytest.approx(expected, rel=1e-4)


def test_a_coupled_cluster_label_keeps_the_energies_inside_it(
    child: LabelChild, water: Frame
) -> None:
    label = labelled(child, pyscf_level("ccsd(t)", "sto-3g"), water)
    for name in ("hf", "mp2", "ccsd"):
        inside = label.details[f"energy_{name}"]
        alone = labelled(child, pyscf_level(name, "sto-3g"), water).energy
        assert inside == pytest.approx(alone, abs=1e-7)
    assert label.energy < label.details["energy_ccsd"]
    assert 0.0 < label.details["t1"] < 0.02
    assert label.details["gap"] > 5.0
    assert label.details["program"] == pyscf_level("hf", "sto-3g").settings["program"]
    assert label.cpu_seconds > 0.0
    assert label.details["peak_mb"] > 50.0


def test_an_open_shell_label_keeps_its_spin_square(child: LabelChild) -> None:
    oxygen = Frame(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 1.2]]), spin=2)
    label = labelled(child, pyscf_level("hf", "sto-3g"), oxygen)
    assert label.details["s2"] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("method", ["hf", "mp2", "ccsd(t)"])
def test_single_atoms_have_an_energy_and_no_force(
    child: LabelChild, method: str
) -> None:
    atom = Frame(np.array([1]), np.zeros((1, 3)), spin=1)
    label = labelled(child, pyscf_level(method, "6-31g"), atom)
    assert label.energy == pytest.approx(-0.4982 * HARTREE, abs=1e-2)
    np.testing.assert_array_equal(label.forces, np.zeros((1, 3)))


def test_heavy_elements_get_the_effective_core_of_their_basis(
    child: LabelChild,
) -> None:
    frame = Frame(np.array([53, 1]), np.array([[0, 0, 0], [0, 0, 1.6]]))
    label = labelled(child, pyscf_level("hf", "def2-svp"), frame)
    assert -310 < label.energy / HARTREE < -290  # all electrons: below -6000


def test_labels_do_not_depend_on_what_ran_before_or_where(
    child: LabelChild, water: Frame, hydroxyl: Frame
) -> None:
    fitted = pyscf_level("b3lyp", "6-31g", density_fit=True, grid=1)
    levels = [fitted, pyscf_level("ccsd(t)", "sto-3g")]
    first = [labelled(child, level, water) for level in levels]
    labelled(child, levels[1], hydroxyl)
    with child_of_its_own() as other:
        again = [labelled(other, level, water) for level in reversed(levels)][::-1]
    repeat = [labelled(child, level, water) for level in levels]
    for a, b, c in zip(first, again, repeat, strict=True):
        assert a.energy == b.energy == c.energy
        assert a.forces.tobytes() == b.forces.tobytes() == c.forces.tobytes()


class child_of_its_own:
    def __enter__(self) -> LabelChild:
        self.child = LabelChild(Limits(seconds=120.0))
        return self.child

    def __exit__(self, *_: object) -> None:
        self.child.close()


def test_an_unconverged_scf_gives_no_label(child: LabelChild, water: Frame) -> None:
    outcome = refused(child, pyscf_level("hf", "sto-3g", max_cycle=1), water)
    assert outcome.failure is Failure.NOT_CONVERGED
    assert "level shift" in outcome.message
    assert outcome.details["rung"] == "second order"


@pytest.mark.parametrize(
    ("cycles", "rung"),
    [(2, "second order"), (3, "level shift"), (4, "damping"), (50, "default")],
)
def test_each_rung_rescues_to_the_same_state_and_is_recorded(
    child: LabelChild, water: Frame, cycles: int, rung: str
) -> None:
    label = labelled(child, pyscf_level("hf", "sto-3g", max_cycle=cycles), water)
    best = labelled(child, pyscf_level("hf", "sto-3g"), water)
    assert label.details["rung"] == rung
    assert label.energy == pytest.approx(best.energy, abs=1e-7)
    np.testing.assert_allclose(label.forces, best.forces, atol=1e-3)


@pytest.mark.parametrize("method", ["ccsd", "ccsd(t)"])
def test_unconverged_amplitudes_give_no_label(
    child: LabelChild, water: Frame, method: str
) -> None:
    outcome = refused(child, pyscf_level(method, "sto-3g", cc_max_cycle=3), water)
    assert outcome.failure is Failure.CC_NOT_CONVERGED
    assert "amplitude" in outcome.message


UNFINISHED = """
import numpy as np
from pyscf.cc import ccsd_lambda
from alloop.core.frame import Frame
from alloop.labels.direct import label_frame
from alloop.labels.levels import pyscf_level
whole = ccsd_lambda.kernel
def stopped(cc, eris, t1, t2, l1, l2, max_cycle, tol, *rest, **named):
    return whole(cc, eris, t1, t2, l1, l2, 1, tol, *rest, **named)
ccsd_lambda.kernel = stopped
frame = Frame(np.array([9, 1]), np.array([[0, 0, 0], [0, 0, 0.95]]))
for method in ("ccsd", "ccsd(t)"):
    outcome = label_frame(pyscf_level(method, "sto-3g"), frame)
    print(outcome.failure.name, outcome.message)
"""


def test_unconverged_lambda_equations_give_no_label() -> None:
    # They converge wherever the amplitudes do, so they are stopped after one cycle.
    done = subprocess.run(
        [sys.executable, "-c", UNFINISHED], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "CC_NOT_CONVERGED the lambda equations did not converge",
        "CC_NOT_CONVERGED the (T) lambda equations did not converge",
    ]


def test_frames_that_the_level_cannot_treat_are_refused_by_name(
    child: LabelChild, water: Frame
) -> None:
    minimal = pyscf_level("hf", "sto-3g")
    cell = Frame(water.numbers, water.positions, cell=np.eye(3) * 9, pbc=(True,) * 3)
    radical = Frame(water.numbers, water.positions, charge=1)
    iodine = Frame(np.array([53, 53]), np.array([[0, 0, 0], [0, 0, 2.7]]))
    foreign = make_level("pyscf", {**minimal.settings, "program": "pyscf 1.7"})
    fitted = pyscf_level("mp2", "6-31g", density_fit=True)
    cases = [
        (minimal, cell, Failure.UNSUPPORTED, "cells"),
        (minimal, radical, Failure.ELECTRONS, "odd spin"),
        (
            pyscf_level("hf", "6-31g"),
            iodine,
            Failure.UNSUPPORTED,
            "Basis set not found",
        ),
        (foreign, water, Failure.UNSUPPORTED, "pyscf 1.7"),
        (fitted, water, Failure.UNSUPPORTED, "density_fit"),
        (pyscf_level("b3lpy", "6-31g"), water, Failure.UNSUPPORTED, "'b3lpy'"),
    ]
    for theory, frame, failure, words in cases:
        outcome = refused(child, theory, frame)
        assert outcome.failure is failure
        assert words in outcome.message


def test_an_atom_with_more_electrons_than_orbitals_of_a_guess_gets_a_label(
    child: LabelChild,
) -> None:
    # PySCF's Hückel guess of iron has 14 orbitals, for 15 alpha electrons.
    iron = Frame(np.array([26]), np.zeros((1, 3)), spin=4)
    label = labelled(child, pyscf_level("hf", "def2-svp"), iron)
    limit = -1262.4437  # hartree, Hartree-Fock without a basis for the quintet
    assert limit < label.energy / HARTREE < limit + 0.3
    own = refused(child, pyscf_level("hf", "def2-svp", init_guess="huckel"), iron)
    assert own.failure is Failure.UNSUPPORTED
    assert "`init_guess: minao`" in own.message
