"""Analytic potentials against their formulas."""

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.morse import MorsePotential

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.units import FORCE_TO_ACCELERATION
from alloop.potentials.analytic import Morse
from alloop.testing import (
    check_batching,
    check_forces,
    check_permutation,
    check_potential,
    check_predictions,
    check_rotation,
)
from tests.potentials.harmonic import HarmonicWell

FRAMES = [from_atoms(molecule(name)) for name in ("H2O", "CH4", "CO")]


def diatomic(*lengths: float) -> Batch:
    ends = [[[0.0, 0.0, 0.0], [0.0, 0.0, r]] for r in lengths]
    return pack_frames([Frame(np.array([1, 8]), np.array(end)) for end in ends])


def curvature(potential: Morse, r: float, h: float = 1e-4) -> float:
    E = potential.predict(diatomic(r - h, r, r + h)).energies
    return float(E[0] - 2 * E[1] + E[2]) / h**2


def test_a_morse_molecule_keeps_all_laws() -> None:
    check_potential(Morse(), FRAMES, tolerance=1e-5)


def test_a_well_keeps_the_laws_that_an_outer_field_can() -> None:
    check_predictions(HarmonicWell(2.0), FRAMES)
    for law in (check_forces, check_permutation, check_batching, check_rotation):
        law(HarmonicWell(2.0), FRAMES)


def test_morse_agrees_with_ase() -> None:
    well = Morse(depth=3.0, width=1.8, length=1.2)
    ase = MorsePotential(epsilon=3.0, rho0=1.8 * 1.2, r0=1.2, rcut1=30.0, rcut2=40.0)
    for frame in FRAMES:
        atoms = to_atoms(frame)
        atoms.calc = ase
        said = well.predict(pack_frames([frame]))
        assert said.energies[0] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(said.forces, atoms.get_forces(), atol=1e-10)


def test_morse_has_its_minimum_depth_and_frequency() -> None:
    well = Morse(depth=5.0, width=2.2, length=0.96)
    assert well.predict(diatomic(0.96)).energies[0] == pytest.approx(-5.0)
    assert np.abs(well.predict(diatomic(0.96)).forces).max() < 1e-12
    mass = 0.948  # amu
    omega = np.sqrt(curvature(well, 0.96) * FORCE_TO_ACCELERATION / mass)  # rad/fs
    assert well.frequency(mass) == pytest.approx(omega, rel=1e-5)


def test_only_listed_bonds_bind() -> None:
    water = pack_frames([FRAMES[0], FRAMES[0]])
    bonded = Morse(bonds=((0, 1), (0, 2))).predict(water)
    i, j = FRAMES[0].positions[0], FRAMES[0].positions[1]
    single = Morse().predict(diatomic(float(np.linalg.norm(i - j)))).energies[0]
    np.testing.assert_allclose(bonded.energies, 2 * single)
    check_forces(Morse(bonds=((0, 1), (0, 2))), [FRAMES[0]])


def test_a_well_pulls_to_its_centre() -> None:
    well = HarmonicWell(stiffness=3.0, centre=(1.0, 0.0, 0.0))
    batch = pack_frames([Frame(np.array([1]), np.array([[1.0, 2.0, 0.0]]))])
    said = well.predict(batch, descriptors=True)
    assert said.energies[0] == pytest.approx(6.0)
    np.testing.assert_allclose(said.forces, [[0.0, -6.0, 0.0]])
    np.testing.assert_allclose(said.descriptors, [[2.0]])
    assert well.frequency(2.0) == pytest.approx(np.sqrt(1.5 * FORCE_TO_ACCELERATION))
