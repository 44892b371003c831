"""Scans against ASE's own dihedral angles and distances."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from benchmarks.accuracy.exploration.temperatures import (
    open_bonds,
    stretched_frame,
    turned_frame,
)


def atoms_of(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions)


@pytest.fixture
def ethanol() -> Frame:
    return from_atoms(molecule("CH3CH2OH"))


@pytest.mark.parametrize(
    ("name", "bonds", "rotors"),
    [
        ("CH3CH2OH", 8, 2),
        ("C6H6", 6, 0),
        ("C3H6_D3h", 6, 0),
        ("H2O", 2, 0),
        ("H", 0, 0),
    ],
)
def test_bonds_outside_rings_are_found(name: str, bonds: int, rotors: int) -> None:
    found = open_bonds(from_atoms(Atoms("H") if name == "H" else molecule(name)))
    assert len(found) == bonds
    assert sum(bond.turns for bond in found) == rotors


def test_a_turn_changes_dihedral_angles_alone(ethanol: Frame) -> None:
    for bond in open_bonds(ethanol):
        if not bond.turns:
            continue
        atoms, turned = atoms_of(ethanol), turned_frame(ethanol, bond, np.radians(40.0))
        after = atoms_of(turned)
        for side in (bond.part, ~bond.part):
            own = np.flatnonzero(side)
            before = atoms.get_all_distances()[np.ix_(own, own)]
            np.testing.assert_allclose(
                after.get_all_distances()[np.ix_(own, own)], before, atol=1e-7
            )
        near = [
            next(i for i in np.flatnonzero(side) if i not in (bond.fixed, bond.moved))
            for side in (~bond.part, bond.part)
        ]
        ends = (near[0], bond.fixed, bond.moved, near[1])
        change = after.get_dihedral(*ends) - atoms.get_dihedral(*ends)
        assert change % 360.0 == pytest.approx(40.0, abs=1e-4)
        assert after.get_angle(*ends[:3]) == pytest.approx(atoms.get_angle(*ends[:3]))


def test_a_stretch_moves_the_smaller_part_along_the_bond(ethanol: Frame) -> None:
    for bond in open_bonds(ethanol):
        assert bond.part.sum() <= (~bond.part).sum()
        longer = atoms_of(stretched_frame(ethanol, bond, 1.3))
        before = atoms_of(ethanol).get_distance(bond.fixed, bond.moved)
        after = longer.get_distance(bond.fixed, bond.moved)
        assert after == pytest.approx(1.3 * before)
        moved = longer.positions - ethanol.positions
        assert np.linalg.norm(moved[~bond.part]) == pytest.approx(0.0)
