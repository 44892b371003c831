"""Frames to ASE and back."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.atoms import (
    atomic_number,
    chemical_symbol,
    frame_masses,
    from_atoms,
    hill_formula,
    to_atoms,
)
from alloop.core.frame import Frame


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_frame_survives_the_way_to_ase_and_back(frame_of, seed):
    frame = frame_of(seed)
    assert from_atoms(to_atoms(frame)) == frame


def test_charge_and_spin_come_from_info_unless_they_are_given():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"charge": -1, "spin": 2})
    assert (from_atoms(atoms).charge, from_atoms(atoms).spin) == (-1, 2)
    stated = from_atoms(atoms, charge=0, spin=1)
    assert (stated.charge, stated.spin) == (0, 1)
    bare = from_atoms(Atoms("OH", [[0, 0, 0], [0, 0, 1]]))
    assert (bare.charge, bare.spin) == (0, 0)


def test_atoms_do_not_share_memory_with_the_frame():
    frame = Frame([1, 1], [[0, 0, 0], [0, 0, 0.74]])
    atoms = to_atoms(frame)
    atoms.positions += 1.0
    assert frame.positions[0, 0] == 0.0


def test_cells_and_periodicity_are_kept():
    atoms = Atoms("H", cell=[4, 5, 6], pbc=(True, False, True))
    frame = from_atoms(atoms)
    np.testing.assert_array_equal(np.diag(frame.cell), [4, 5, 6])
    assert frame.pbc == (True, False, True)


def test_masses_and_symbols_are_the_periodic_tables():
    np.testing.assert_allclose(frame_masses(np.array([1, 8])), [1.008, 15.999])
    assert (chemical_symbol(8), atomic_number("O")) == ("O", 8)
    with pytest.raises(KeyError):
        atomic_number("Xx")


@pytest.mark.parametrize(
    ("name", "expected"), [("CH3OH", "CH4O"), ("H2O", "H2O"), ("C6H6", "C6H6")]
)
def test_formulas_are_hills(name, expected):
    assert hill_formula(from_atoms(molecule(name))) == expected
