import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed, Calculator, SCFError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from alloop.core.atoms import to_atoms
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.calculator import LabelCalculator
from alloop.labels.direct import DirectLabeller
from alloop.labels.isolated import Child
from alloop.labels.levels import ase_level, pyscf_level
from alloop.labels.toy import toy_level

ARGON = ase_level("ase.calculators.lj.LennardJones", {"sigma": 3.4, "epsilon": 0.01})


def cluster(seed: int) -> Frame:
    corners = 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    noise = np.random.default_rng(seed).normal(0, 0.1, (4, 3))
    return Frame(np.full(4, 18), corners + noise)


@pytest.mark.parametrize("isolated", [False, True])
def test_labels_are_what_the_calculator_says(child: Child, isolated: bool) -> None:
    labeller = child.labeller(ARGON) if isolated else DirectLabeller(ARGON)
    for seed in (1, 2, 1):  # the second visit must not remember the frame between
        label = labeller.label(cluster(seed))
        atoms = to_atoms(cluster(seed))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.01)
        assert isinstance(label, Label)
        assert label.energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(label.forces, atoms.get_forces())


def test_an_element_that_the_calculator_lacks_is_unsupported() -> None:
    frame = Frame(np.array([53, 53]), np.array([[0, 0, 0], [0, 0, 2.8]]))
    outcome = DirectLabeller(ase_level("ase.calculators.emt.EMT")).label(frame)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.UNSUPPORTED


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SCFError("no"), Failure.NOT_CONVERGED),
        (CalculationFailed("no"), Failure.CRASHED),
        (ValueError("no"), Failure.CRASHED),
    ],
)
def test_what_a_calculator_raises_becomes_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, failure: Failure
) -> None:
    def raising(self: Calculator, *_: object) -> None:
        raise error

    monkeypatch.setattr(EMT, "calculate", raising)
    outcome = DirectLabeller(ase_level("ase.calculators.emt.EMT")).label(cluster(1))
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is failure
    assert "no" in outcome.message


def test_a_labeller_serves_as_an_ase_calculator(child: Child, water: Frame) -> None:
    labeller = child.labeller(pyscf_level("hf", "sto-3g"))
    atoms = to_atoms(water)
    atoms.calc = LabelCalculator(labeller)
    label = labeller.label(water)
    assert atoms.get_potential_energy() == label.energy
    np.testing.assert_array_equal(atoms.get_forces(), label.forces)
    assert atoms.calc.details["rung"] == "default"


def test_the_calculator_takes_charge_and_spin(child: Child, water: Frame) -> None:
    labeller = child.labeller(pyscf_level("hf", "sto-3g"))
    atoms = to_atoms(water)
    atoms.calc = LabelCalculator(labeller, charge=1, spin=1)
    cation = Frame(water.numbers, water.positions, charge=1, spin=1)
    assert atoms.get_potential_energy() == labeller.label(cation).energy


def test_a_failed_label_is_a_failed_calculation(water: Frame) -> None:
    atoms = to_atoms(water)
    atoms.calc = LabelCalculator(DirectLabeller(toy_level(fail_above=0.5)))
    with pytest.raises(CalculationFailed, match="NOT_CONVERGED"):
        atoms.get_potential_energy()
