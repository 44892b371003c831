"""ASE calculators as potentials and potentials as ASE calculators."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.units import Floats
from alloop.potentials.analytic import Morse
from alloop.potentials.ase import AsePotential, PotentialCalculator
from alloop.testing import check_potential


class DepthScorer:
    """The largest descriptor of a frame."""

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        assert predictions.descriptors is not None
        return np.maximum.reduceat(predictions.descriptors[:, 0], batch.offsets[:-1])


class ChargePotential:
    """An energy that counts charge and spin."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        energies = batch.charges + 0.1 * batch.spins
        forces = np.zeros_like(batch.positions)
        return Predictions(energies, forces, forces if descriptors else None)


def test_a_calculator_predicts_what_ase_calculates() -> None:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.05, seed=3)
    water = molecule("H2O")
    said = AsePotential(EMT()).predict(pack([from_atoms(a) for a in (copper, water)]))
    for index, atoms in enumerate((copper, water)):
        atoms.calc = EMT()
        span = slice(0, 4) if index == 0 else slice(4, 7)
        assert said.energies[index] == pytest.approx(
            atoms.get_potential_energy(), abs=1e-6
        )
        np.testing.assert_allclose(said.forces[span], atoms.get_forces(), atol=1e-5)


def test_a_calculator_keeps_the_laws() -> None:
    frames = [from_atoms(molecule(name)) for name in ("H2O", "CH4")]
    potential = AsePotential(LennardJones(sigma=1.5, rc=6.0, smooth=True, ro=4.0))
    check_potential(potential, frames, tolerance=1e-5, descriptors=False)


def test_a_calculator_has_no_descriptors() -> None:
    with pytest.raises(InputError, match="got an ASE calculator"):
        AsePotential(EMT()).predict(pack([]), descriptors=True)


def test_a_potential_drives_ase_atoms() -> None:
    atoms = molecule("H2O")
    atoms.calc = PotentialCalculator(Morse())
    expected = Morse().predict(pack([from_atoms(atoms)]))
    assert atoms.get_potential_energy() == expected.energies[0]
    assert atoms.get_potential_energy(force_consistent=True) == expected.energies[0]
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("surprise", atoms)


def test_with_a_scorer_surprise_is_a_property() -> None:
    atoms = molecule("H2O")
    atoms.calc = PotentialCalculator(Morse(), DepthScorer())
    halves = Morse().predict(pack([from_atoms(atoms)]), descriptors=True).descriptors
    assert halves is not None
    assert atoms.calc.get_property("surprise", atoms) == halves.max()
    atoms.get_forces()
    assert atoms.calc.results["surprise"] == halves.max()


def test_another_charge_or_spin_is_calculated_anew() -> None:
    atoms = molecule("OH")
    atoms.calc = PotentialCalculator(ChargePotential())
    energies = []
    for info in ({}, {"charge": -1}, {"charge": -1, "spin": 2}, {"spin": 1}):
        atoms.info = info
        energies.append(atoms.get_potential_energy())
    assert energies == pytest.approx([0.0, -1.0, -0.8, 0.1])


def test_both_directions_undo_each_other() -> None:
    batch = pack([from_atoms(molecule(name)) for name in ("H2O", "C2H6")])
    there = AsePotential(PotentialCalculator(Morse())).predict(batch)
    np.testing.assert_allclose(
        there.energies, Morse().predict(batch).energies, rtol=1e-14
    )
