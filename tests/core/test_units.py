"""Constants against CODATA, and against the physics that they are made for."""

import numpy as np
import pytest
from scipy import constants

from alloop.core import units


def in_si(name):
    return constants.physical_constants[name][0]


@pytest.mark.parametrize(
    ("ours", "si"),
    [
        (units.HARTREE, in_si("Hartree energy in eV")),
        (units.BOHR, in_si("Bohr radius") * 1e10),
        (units.KCAL_PER_MOL, 4184 / constants.N_A / constants.e),
        (units.KJ_PER_MOL, 1000 / constants.N_A / constants.e),
        (units.BOLTZMANN, constants.k / constants.e),
        (
            units.FORCE_TO_ACCELERATION,
            constants.e / 1e-10 / constants.atomic_mass * 1e-20,  # m/s² -> Å/fs²
        ),
    ],
)
def test_constants_are_codata(ours, si):
    assert ours == pytest.approx(si, rel=1e-6)


def test_kinetic_energy_and_acceleration_fit_each_other():
    """An atom of 2 amu that 3 eV/Å push over 0.5 Å gains 1.5 eV."""
    mass, force, distance = 2.0, 3.0, 0.5
    acceleration = force / mass * units.FORCE_TO_ACCELERATION
    speed = np.sqrt(2 * acceleration * distance)
    assert 0.5 * units.KINETIC * mass * speed**2 == pytest.approx(force * distance)


def test_ase_velocities_have_the_same_kinetic_energy():
    speed, mass = 0.02, 16.0
    in_ase = 0.5 * mass * (speed * units.ASE_VELOCITY) ** 2
    assert 0.5 * units.KINETIC * mass * speed**2 == pytest.approx(in_ase)


def test_tables_name_the_units_that_files_use():
    assert units.ENERGY_UNITS["eV"] == units.LENGTH_UNITS["angstrom"] == 1.0
    assert units.ENERGY_UNITS["hartree"] / units.LENGTH_UNITS["bohr"] == pytest.approx(
        51.4221, abs=1e-4
    )
    assert units.ENERGY_UNITS["kcal/mol"] / units.ENERGY_UNITS["kJ/mol"] == (
        pytest.approx(4.184)
    )
