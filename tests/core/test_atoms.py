"""Frames to ASE and back."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.atoms import (
    atomic_number,
    chemical_symbol,
    electronic_state,
    frame_masses,
    from_atoms,
    hill_formula,
    to_atoms,
)
from alloop.core.errors import InputError
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


@pytest.mark.parametrize(
    ("info", "arrays", "state"),
    [
        ({"Total_Charge": 1.0}, {}, (1, 0, "Total_Charge", "")),
        ({"multiplicity": 3}, {}, (0, 2, "", "multiplicity")),
        ({"total_spin": 2}, {}, (0, 1, "", "total_spin")),
        ({"uhf": 2, "spin_multiplicity": "3"}, {}, (0, 2, "", "uhf")),
        ({}, {"initial_charges": [0.6, 0.4]}, (1, 0, "initial_charges", "")),
        ({}, {"initial_magmoms": [1.0, 1.0]}, (0, 2, "", "initial_magmoms")),
        ({}, {"initial_magmoms": [1.0, -1.0]}, (0, 0, "", "initial_magmoms")),
        ({"charge": 1}, {"initial_charges": [0.0, 0.0]}, (1, 0, "charge", "")),
        ({"tot_charge": -1}, {}, (-1, 0, "tot_charge", "")),
        ({}, {"initial_magmoms": [[0, 2.0, 0], [0, 0, 0]]}, (0, 2, "", "initial_m")),
        ({"spin_contamination": 0.75, "charge_transfer": 0.31}, {}, (0, 0, "", "")),
        ({"spin_polarized": True, "formal_charge": 0}, {}, (0, 0, "", "")),
        ({"nuclear": 9}, {"nuclear_charges": [8.0, 1.0]}, (0, 0, "", "")),
        ({}, {"mulliken_charges": [0.31, -0.32]}, (0, 0, "", "")),
        ({"formal_charge": 1, "charge": 2}, {}, (2, 0, "charge", "")),
    ],
)
def test_charge_and_spin_of_other_programs_are_read(info, arrays, state):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info=info)
    for name, values in arrays.items():
        atoms.set_array(name, np.array(values))
    found = electronic_state(atoms)
    assert found[:3] == state[:3]
    assert found.spin_name.startswith(state[3])
    assert bool(found.spin_name) == bool(state[3])
    assert (from_atoms(atoms).charge, from_atoms(atoms).spin) == state[:2]
    assert from_atoms(atoms, 2, 4).spin == 4


@pytest.mark.parametrize(
    ("info", "charges", "message"),
    [
        ({"charge": 0, "total_charge": 1}, [], "`charge` 0, `total_charge` 1; give"),
        ({"charge": 0}, [1.0, 0.0], "`initial_charges` 1; give `charge`"),
        ({}, [0.3, 0.0], "one whole charge of a structure, it has `initial_charges`"),
        ({"spin": 0, "multiplicity": 2}, [], "`spin` 0, `multiplicity` 1; give `mult"),
        ({"charge": "one"}, [], "as `charge` of a structure, got 'one'"),
        ({"charge": np.nan}, [], "as `charge` of a structure, got nan"),
        ({"charge": "inf"}, [], "as `charge` of a structure, got 'inf'"),
        ({"Charge": 1, "charge": 0}, [], "`Charge` 1, `charge` 0; give"),
        ({"formal_charge": 1}, [], "a known name .* has `formal_charge` 1; give `ch"),
        ({"q": -1}, [], "it has `q` -1; give `charge`"),
        ({"spin_mult": 2}, [], "it has `spin_mult` 2; give `multiplicity`"),
        ({"n_unpaired": 1}, [], "it has `n_unpaired` 1; give `multiplicity`"),
        ({"total_magmom": 2.0}, [], "it has `total_magmom` 2; give `multiplicity`"),
        ({"multiplicity": 0}, [], r"of 0 or more, got -1 \(multiplicity\)"),
    ],
)
def test_names_that_disagree_are_refused_unless_the_caller_knows(
    info, charges, message
):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info=info)
    if charges:
        atoms.set_initial_charges(charges)
    with pytest.raises(InputError, match=message):
        from_atoms(atoms)
    assert from_atoms(atoms, charge=1, spin=0).charge == 1


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ({"charges": np.array([0.7, 0.31])}, (1, 0, "charges", "")),
        ({"charges": np.array([0.31, -0.3])}, (0, 0, "", "")),
        ({"magmoms": np.array([-1.02, 0.04])}, (0, 1, "", "magmoms")),
        ({"magmom": 2.0, "magmoms": np.array([1.0, 0.0])}, (0, 2, "", "magmom")),
    ],
)
def test_results_of_atoms_tell_charge_and_spin_where_nothing_else_does(results, state):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]])
    atoms.calc = SinglePointCalculator(atoms, **results)
    assert electronic_state(atoms) == state
    atoms.info.update(charge=2, spin=3)
    assert electronic_state(atoms) == (2, 3, "charge", "spin")


def test_charges_of_atoms_under_another_name_are_not_passed_over():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]])
    atoms.set_array("mulliken_charges", np.array([-0.7, -0.3]))
    with pytest.raises(InputError, match="`mulliken_charges` -1; give `charge`"):
        from_atoms(atoms)
    assert from_atoms(atoms, charge=-1).charge == -1


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
