"""Vibrations: intensities, symmetry numbers and ideal gases against known numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import frame_masses, from_atoms
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.md.vibrations import gas_functions, harmonic_vibrations, rotation_count

SpringsOf: TypeAlias = Callable[[Frame, float], Potential]


@dataclass(frozen=True)
class Charged:
    """Another potential, with fixed charges (atoms,) in e on the atoms of a frame."""

    inner: Potential
    charges: Floats

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        inner = self.inner.predict(batch, descriptors=descriptors)
        positions = batch.positions.reshape(len(batch), -1, 3)
        return replace(inner, dipoles=np.einsum("a,fax->fx", self.charges, positions))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("H2O", 2),
        ("NH3", 3),
        ("CH4", 12),
        ("C6H6", 12),
        ("C2H6", 6),
        ("C2H4", 4),
        ("CH3OH", 1),
        ("CO2", 2),
        ("HCN", 1),
        ("N2", 2),
        ("O", 1),
    ],
)
def test_symmetry_numbers_are_those_of_the_textbooks(name: str, number: int) -> None:
    frame = from_atoms(molecule(name), 0, 0)
    noise = np.random.default_rng(1).normal(0.0, 2e-3, frame.positions.shape)
    assert rotation_count(replace(frame, positions=frame.positions + noise)) == number


def test_a_diatomic_absorbs_by_its_charge(springs_of: SpringsOf) -> None:
    frame = from_atoms(molecule("CO"), 0, 0)
    charge = 0.3
    potential = Charged(springs_of(frame, 100.0), np.array([charge, -charge]))
    vibrations = harmonic_vibrations(frame, potential)
    assert vibrations.intensities is not None
    carbon, oxygen = frame_masses(frame.numbers)
    reduced = carbon * oxygen / (carbon + oxygen)
    debye = charge * 4.80320471  # D/Å; 42.2561 km/mol is 1 (D/Å)²/amu
    assert vibrations.intensities == pytest.approx(
        [42.2561 * debye**2 / reduced], rel=1e-4
    )


def test_a_molecule_bent_by_what_an_optimiser_leaves_is_linear(
    springs_of: SpringsOf,
) -> None:
    straight = from_atoms(molecule("CO2"), 0, 0)
    bent = straight.positions + np.array([[3e-4, 0, 0], [0, 2e-4, 0], [0, 0, 0]])
    vibrations = harmonic_vibrations(
        replace(straight, positions=bent), springs_of(straight, 50.0)
    )
    assert vibrations.geometry == "linear"
    assert len(vibrations.modes.squares) == 4


def test_the_entropy_of_argon_is_the_measured_one(springs_of: SpringsOf) -> None:
    argon = Frame(np.array([18]), np.zeros((1, 3)))

    gas = gas_functions(
        harmonic_vibrations(argon, springs_of(argon, 1.0)), 0.0, 298.15, 1.0
    )
    # CODATA: S° 154.846 J/(mol K) at 1 bar; H(298.15 K) - H(0) 6.197 kJ/mol
    assert gas.entropy * 96485.332 == pytest.approx(154.846, abs=0.01)
    assert gas.enthalpy * 96.485332 == pytest.approx(6.197, abs=0.002)
    assert gas.gibbs == pytest.approx(gas.enthalpy - 298.15 * gas.entropy)


def test_imaginary_modes_are_counted_and_left_out(springs_of: SpringsOf) -> None:
    frame = from_atoms(molecule("N2"), 0, 0)
    vibrations = harmonic_vibrations(frame, springs_of(frame, -5.0))
    assert vibrations.imaginary == 1
    assert vibrations.modes.wavenumbers[0] < 0.0
    assert gas_functions(vibrations, 0.0, 298.15, 1.0).zero_point == 0.0
