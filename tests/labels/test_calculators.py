"""Levels as ASE calculators."""

import gc
import subprocess
import sys

import numpy as np
import psutil
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS

from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.labels import calculator
from alloop.labels.calculators import LabelCalculator
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import ase_level
from alloop.labels.toy import toy_level


def pid(calc: LabelCalculator) -> int:
    found: int | None = calc.labeller.child.pid  # type: ignore[attr-defined]
    assert found is not None
    return found


def test_a_name_is_enough_and_an_optimiser_finds_the_minimum() -> None:
    with calculator("hf/sto-3g") as calc:
        atoms = molecule("H2")
        atoms.calc = calc
        assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=20)
        # 0.712 Å: Szabo and Ostlund, Modern Quantum Chemistry, table 3.11
        assert atoms.get_distance(0, 1) == pytest.approx(1.346 * 0.529177, abs=2e-3)
        label = calc.labeller.label(Frame(atoms.numbers, atoms.positions))
        assert isinstance(label, Label)
        assert atoms.get_potential_energy() == label.energy
        np.testing.assert_array_equal(atoms.get_forces(), label.forces)
        assert str(calc.details["program"]).startswith("pyscf")


def test_charge_and_spin_come_from_the_atoms_or_from_the_call(water: Frame) -> None:
    class Echo:
        def label(self, frame: Frame) -> Label:
            forces = np.zeros((len(frame), 3))
            return Label(frame.id, "echo", 10.0 * frame.charge + frame.spin, forces)

    atoms = to_atoms(water)
    atoms.info |= {"charge": 1, "spin": 1}
    atoms.calc = calculator(Echo())
    assert atoms.get_potential_energy() == 11.0
    atoms.info["charge"] = 2
    assert atoms.get_potential_energy() == 21.0
    atoms.info["spin"] = 0
    assert atoms.get_potential_energy() == 20.0
    atoms.calc = calculator(Echo(), charge=-1, spin=3)
    assert atoms.get_potential_energy() == -7.0
    atoms.calc = calculator(Echo(), charge=-1, multiplicity=4)
    assert atoms.get_potential_energy() == -7.0
    with pytest.raises(InputError, match="got both; leave one out"):
        calculator(Echo(), spin=1, multiplicity=2)
    with pytest.raises(InputError, match="at least 1, got 0"):
        calculator(Echo(), multiplicity=0)


def test_stress_is_given_where_the_level_gives_it() -> None:
    argon = bulk("Ar", "fcc", 5.2, cubic=True)
    argon.rattle(0.05, seed=1)
    settings = {"sigma": 3.4, "epsilon": 0.01, "rc": 5.0}
    level = ase_level("ase.calculators.lj.LennardJones", settings)
    argon.calc = calculator(DirectLabeller(level))
    found = argon.get_forces(), argon.get_stress()
    argon.calc = LennardJones(**settings)
    # A frame's positions are rounded to 1e-8 Å.
    np.testing.assert_allclose(found[0], argon.get_forces(), atol=1e-7)
    np.testing.assert_allclose(found[1], argon.get_stress(), atol=1e-9)


def test_a_molecule_has_no_stress(water: Frame) -> None:
    atoms = to_atoms(water)
    atoms.calc = calculator(DirectLabeller(toy_level()))
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_a_failed_label_is_said_with_its_reason_and_the_next_one_works(
    water: Frame,
) -> None:
    with calculator(toy_level(fail_above=1.7)) as calc:
        atoms = to_atoms(water)
        atoms.calc = calc
        energy = atoms.get_potential_energy()
        atoms.positions[1] *= 2.0
        with pytest.raises(CalculationFailed, match=r"NOT_CONVERGED: a pair is 2\."):
            atoms.get_forces()
        atoms.positions[1] /= 2.0
        assert atoms.get_potential_energy() == energy


def test_the_child_ends_with_the_block_and_with_the_last_reference(
    water: Frame,
) -> None:
    atoms = to_atoms(water)
    with calculator(toy_level()) as calc:
        atoms.calc = calc
        atoms.get_forces()
        first = pid(calc)
        assert psutil.pid_exists(first)
    assert not psutil.pid_exists(first)
    atoms.positions[0] += 0.01
    atoms.get_forces()  # the next call starts another
    second = pid(calc)
    del calc
    atoms.calc = None
    gc.collect()
    assert not psutil.pid_exists(second)


def test_a_name_that_is_no_levels_is_refused() -> None:
    with pytest.raises(InputError, match="no level"):
        calculator("hartree fock")


def test_importing_the_package_loads_no_program_and_no_torch() -> None:
    code = (
        "import sys; from alloop.labels import calculator; calculator('hf/sto-3g');"
        "sys.exit(any(name in sys.modules for name in ('pyscf', 'torch', 'tblite')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
