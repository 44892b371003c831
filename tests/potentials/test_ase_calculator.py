"""Potentials as ASE calculators."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.error_limits import ErrorLimits
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.species import Domain
from alloop.core.units import Floats
from alloop.models.network import build_network
from alloop.potentials.analytic import Morse
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.repulsion import ZBL


def packed(*names: str) -> Batch:
    return pack_frames([from_atoms(molecule(name)) for name in names])


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


def test_a_potential_drives_ase_atoms() -> None:
    atoms = molecule("H2O")
    atoms.calc = PotentialCalculator(Morse())
    expected = Morse().predict(pack_frames([from_atoms(atoms)]))
    assert atoms.get_potential_energy() == expected.energies[0]
    assert atoms.get_potential_energy(force_consistent=True) == expected.energies[0]
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("surprise", atoms)


def test_energies_of_atoms_sum_to_the_energy_where_a_potential_has_them() -> None:
    atoms = molecule("H2O")
    network = build_network("schnet", {"channels": 8}, 1, torch.float64)
    atoms.calc = PotentialCalculator(LearnedPotential(network, {1: -13.0, 8: -2040.0}))
    energies = atoms.get_potential_energies()
    assert energies.shape == (3,)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert energies[0] < -2000.0 < energies[1]  # oxygen's reference
    atoms.positions[1] += 0.1
    assert atoms.get_potential_energies().sum() != pytest.approx(
        energies.sum(), abs=1e-6
    )
    atoms.calc = PotentialCalculator(Morse())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()


def test_with_a_scorer_surprise_is_a_property() -> None:
    atoms = molecule("H2O")
    atoms.calc = PotentialCalculator(Morse(), DepthScorer())
    halves = (
        Morse().predict(pack_frames([from_atoms(atoms)]), descriptors=True).descriptors
    )
    assert halves is not None
    assert atoms.calc.get_property("surprise", atoms) == halves.max()
    atoms.get_forces()
    assert atoms.calc.results["surprise"] == halves.max()


def test_with_limits_of_errors_the_surprise_is_an_error_too() -> None:
    atoms = molecule("H2O")
    limits = ErrorLimits(0.9, 20, 0.0, 1.0, (-5.0, 5.0), (-3.0, 1.0), 0.4)
    atoms.calc = PotentialCalculator(Morse(), DepthScorer(), error_limits=limits)
    limit = atoms.calc.get_property("error_limit", atoms)
    assert limit == limits.limit(atoms.calc.results["surprise"])
    atoms.calc = PotentialCalculator(Morse(), error_limits=limits)  # nothing to limit
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("error_limit", atoms)


def test_another_charge_or_spin_is_calculated_anew() -> None:
    atoms = molecule("OH")
    atoms.set_initial_magnetic_moments(None)  # ASE's, which would be read as the spin
    atoms.calc = PotentialCalculator(ChargePotential())
    energies = []
    for info in ({}, {"charge": -1}, {"charge": -1, "spin": 2}, {"spin": 1}):
        atoms.info = info
        energies.append(atoms.get_potential_energy())
    assert energies == pytest.approx([0.0, -1.0, -0.8, 0.1])


def test_only_what_was_learned_is_calculated() -> None:
    water = molecule("H2O")
    water.calc = PotentialCalculator(Morse(), domain=Domain.of(packed("H2O")))
    water.get_forces()
    water.info = {"charge": 1, "spin": 1}
    with pytest.raises(InputError, match="outside=True"):
        water.get_forces()
    water.info = {}
    water.get_forces()
    for other in ("O", "H2", "OH"):
        atoms = molecule(other)
        atoms.calc = water.calc
        with pytest.raises(InputError, match="H2O"):
            atoms.get_potential_energy()


def test_a_new_molecule_of_a_model_of_several_is_warned_of() -> None:
    ethane = molecule("C2H6")
    domain = Domain.of(packed("CH4", "C2H4"))
    ethane.calc = PotentialCalculator(Morse(), domain=domain)
    with pytest.warns(UserWarning, match="never trained on C2H6"):
        ethane.get_forces()


def test_a_call_has_its_own_threads_and_gives_back_the_caller_s() -> None:
    seen = []

    class Watched(Morse):
        def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
            seen.append(torch.get_num_threads())
            return super().predict(batch, descriptors=descriptors)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for threads in (1, 2):
            atoms = molecule("H2O")
            atoms.calc = PotentialCalculator(Watched(), threads=threads)
            atoms.get_forces()
            assert torch.get_num_threads() == 2
        atoms.calc = PotentialCalculator(Watched(), domain=Domain.of(packed("H2")))
        with pytest.raises(InputError):
            atoms.get_forces()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


@pytest.mark.slow
def test_compiled_or_not_a_calculator_says_the_same_of_one_system_after_another() -> (
    None
):
    network = build_network("egnn", {"channels": 8, "layers": 1})
    potential = LearnedPotential(network, {1: 0.0, 8: 0.0}, repulsion=ZBL)
    fast = PotentialCalculator(potential, compile=True)
    for name in ("H2O", "H2O", "H2", "H2O"):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=1)
        atoms.calc = fast
        own = potential.predict(pack_frames([from_atoms(atoms)]))
        np.testing.assert_allclose(atoms.get_forces(), own.forces, atol=1e-5)


def test_cells_have_a_stress_and_molecules_none() -> None:
    network = build_network("egnn", {"channels": 8, "layers": 1}, dtype=torch.float64)
    potential = LearnedPotential(network, {1: 0.0, 8: 0.0}, repulsion=ZBL)
    crystal = molecule("H2O", cell=[3.0, 3.2, 3.4], pbc=True)
    crystal.positions[1] = crystal.positions[0] + [0.0, 0.4, 0.5]
    crystal.calc = PotentialCalculator(potential)
    expected = calculate_numerical_stress(crystal, eps=1e-5)
    np.testing.assert_allclose(crystal.get_stress(), expected, atol=2e-5)
    free = molecule("H2O")
    free.calc = PotentialCalculator(potential)
    with pytest.raises(PropertyNotImplementedError):
        free.get_stress()
