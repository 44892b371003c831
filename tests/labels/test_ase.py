import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator, SCFError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.calculators import LabelCalculator
from alloop.labels.child.labeller import IsolatedLabeller, LabelChild
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import ase_level, pyscf_level
from alloop.labels.toy import toy_level

ARGON = ase_level("ase.calculators.lj.LennardJones", {"sigma": 3.4, "epsilon": 0.01})


def cluster(seed: int) -> Frame:
    corners = 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    noise = np.random.default_rng(seed).normal(0, 0.1, (4, 3))
    return Frame(np.full(4, 18), corners + noise)


@pytest.mark.parametrize("isolated", [False, True])
def test_labels_are_what_the_calculator_says(child: LabelChild, isolated: bool) -> None:
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


TROUBLED = """
import subprocess
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

class Troubled(Calculator):
    implemented_properties = ("energy", "free_energy", "forces")
    default_parameters = {"how": ""}

    def calculate(self, atoms, properties, changes):
        n = len(atoms)
        self.results = {"energy": 1.0, "forces": np.zeros((n, 3))}
        match self.parameters["how"]:
            case "smeared": self.results["free_energy"] = 0.5
            case "nan": self.results["energy"] = np.nan
            case "shape": self.results["forces"] = np.zeros((n + 1, 3))
            case "text": self.results["forces"] = "none"
            case "forceless": del self.results["forces"]
            case "stops": subprocess.run(["false"], check=True)
            case "missing": subprocess.run(["/no/such/program"])
            case "asserts": assert n == 0, "no atoms wanted"
            case "types": len(3)
            case "imports": import no_such_module
            case "invents": raise Invented("unforeseen")

class Invented(Exception): pass
"""


@pytest.fixture
def troubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of a calculator that fails in all ways, one at a time."""
    (tmp_path / "troubled.py").write_text(TROUBLED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "troubled", raising=False)
    return "troubled.Troubled"


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("nan", Failure.GATE),
        ("shape", Failure.GATE),
        ("text", Failure.CRASHED),
        ("forceless", Failure.UNSUPPORTED),
        ("stops", Failure.CRASHED),
        ("missing", Failure.CRASHED),
        ("asserts", Failure.CRASHED),
        ("types", Failure.CRASHED),
        ("imports", Failure.UNSUPPORTED),
    ],
)
def test_whatever_goes_wrong_in_a_calculator_has_a_name(
    troubled: str, how: str, failure: Failure
) -> None:
    outcome = DirectLabeller(ase_level(troubled, {"how": how})).label(cluster(1))
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is failure


def test_an_error_that_nobody_foresaw_ends_the_child_and_not_the_worker(
    troubled: str,
) -> None:
    with IsolatedLabeller(ase_level(troubled, {"how": "invents"})) as labeller:
        outcome = labeller.label(cluster(1))
        assert outcome.failure is Failure.CRASHED
        assert "unforeseen" in outcome.message
        well = labeller.labeller(ase_level(troubled))
        assert isinstance(well.label(cluster(1)), Label)


def test_the_energy_is_the_one_whose_gradient_the_forces_are(troubled: str) -> None:
    label = DirectLabeller(ase_level(troubled, {"how": "smeared"})).label(cluster(1))
    assert label.energy == 0.5


def test_a_cell_has_its_stress_as_ase_tells_it() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
    atoms.rattle(0.05, seed=3)
    label = DirectLabeller(ase_level("ase.calculators.emt.EMT")).label(
        from_atoms(atoms)
    )
    again = to_atoms(from_atoms(atoms))
    again.calc = EMT()
    assert isinstance(label, Label)
    assert label.stress is not None
    np.testing.assert_array_equal(label.stress, again.get_stress())
    molecule = DirectLabeller(ARGON).label(cluster(1))
    assert isinstance(molecule, Label)
    assert molecule.stress is None


def test_a_labeller_serves_as_an_ase_calculator(
    child: LabelChild, water: Frame
) -> None:
    labeller = child.labeller(pyscf_level("hf", "sto-3g"))
    atoms = to_atoms(water)
    atoms.calc = LabelCalculator(labeller)
    label = labeller.label(water)
    assert atoms.get_potential_energy() == label.energy
    np.testing.assert_array_equal(atoms.get_forces(), label.forces)
    assert atoms.calc.details["rung"] == "default"


def test_the_calculator_takes_charge_and_spin(child: LabelChild, water: Frame) -> None:
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
