"""Turned and stretched bonds against ASE's own dihedral angles and distances."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.md.contacts import closest_contact
from alloop.md.shapes import (
    ShapeSettings,
    bent_frame,
    flattened_frame,
    open_bonds,
    proposed_shapes,
    pyramids,
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


def test_shapes_turn_and_stretch_as_they_are_told_to(ethanol: Frame) -> None:
    settings = ShapeSettings(proposals=400, longest=1.4)
    shapes = [
        atoms_of(x)
        for x in proposed_shapes(ethanol, settings, np.random.default_rng(1))
    ]
    before = atoms_of(ethanol)
    bonds = [(bond.fixed, bond.moved) for bond in open_bonds(ethanol)]
    ratios = np.array(
        [[x.get_distance(*b) / before.get_distance(*b) for b in bonds] for x in shapes]
    )
    changed = np.abs(ratios - 1) > 1e-6
    assert changed.sum(axis=1).max() == 1  # one bond at a time
    assert changed.any(axis=0).all()  # and each in its turn
    stretched = ratios[changed]
    assert 0.85 <= stretched.min() < 0.87
    assert 1.38 < stretched.max() <= 1.4
    angles = [x.get_dihedral(0, 1, 2, 3) for x in shapes]  # of H-O-C-C
    counts = np.histogram(angles, bins=6, range=(0, 360))[0]
    assert counts.min() > 20


def test_shapes_are_those_of_their_random_stream(ethanol: Frame) -> None:
    settings = ShapeSettings(proposals=10)
    streams = [np.random.default_rng(seed) for seed in (1, 1, 2)]
    first, again, other = (proposed_shapes(ethanol, settings, x) for x in streams)
    assert [x.id for x in first] == [x.id for x in again]
    assert {x.id for x in first}.isdisjoint(x.id for x in other)


@pytest.mark.parametrize("name", ["H", "C3H6_D3h"])
def test_atoms_never_clash_in_shapes(name: str) -> None:
    frame = from_atoms(Atoms("H") if name == "H" else molecule(name))
    settings = ShapeSettings(proposals=50, shortest=0.5)
    shapes = proposed_shapes(frame, settings, np.random.default_rng(0))
    assert len(shapes) < 50
    assert all(closest_contact(shape) >= 0.7 for shape in shapes)


def test_limits_of_shapes_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="expected `shortest` below `longest`"):
        ShapeSettings(shortest=1.0, longest=1.0)


def test_a_bent_bond_keeps_its_length_and_bends_by_the_angle(ethanol: Frame) -> None:
    rng = np.random.default_rng(2)
    for bond in open_bonds(ethanol):
        bent = bent_frame(ethanol, bond, np.radians(35.0), rng.normal(size=3))
        arms = [
            x.positions[bond.moved] - x.positions[bond.fixed] for x in (ethanol, bent)
        ]
        lengths = [np.linalg.norm(arm) for arm in arms]
        assert lengths[0] == pytest.approx(lengths[1], abs=1e-7)
        cosine = arms[0] @ arms[1] / (lengths[0] * lengths[1])
        assert np.degrees(np.arccos(cosine)) == pytest.approx(35.0, abs=1e-4)
        moved = atoms_of(ethanol)[bond.part].get_all_distances()
        assert atoms_of(bent)[bond.part].get_all_distances() == pytest.approx(moved)
        assert (bent.positions[~bond.part] == ethanol.positions[~bond.part]).all()


@pytest.mark.parametrize("height", [1.0, 0.0, -1.0])
def test_ammonia_goes_through_the_plane_of_its_hydrogens(height: float) -> None:
    ammonia = from_atoms(molecule("NH3"))
    assert pyramids(ammonia) == (0,)
    moved = flattened_frame(ammonia, 0, height)
    plane = ammonia.positions[1:].mean(axis=0)
    before, after = (x.positions[0] - plane for x in (ammonia, moved))
    assert after == pytest.approx(height * before, abs=1e-5)
    assert (moved.positions[1:] == ammonia.positions[1:]).all()


def test_bends_come_on_top_of_the_other_shapes() -> None:
    ammonia = from_atoms(molecule("NH3"))
    few, more = (
        proposed_shapes(ammonia, settings, np.random.default_rng(0))
        for settings in (
            ShapeSettings(proposals=40),
            ShapeSettings(proposals=40, bend=60.0),
        )
    )
    assert [x.id for x in more[: len(few)]] == [x.id for x in few]
    heights = [abs(flatness(x)) for x in more[len(few) :]]
    assert min(heights) < 0.05  # planar
    cyanide = from_atoms(Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]]))
    settings = ShapeSettings(proposals=400, bend=180.0)
    shapes = proposed_shapes(cyanide, settings, np.random.default_rng(0))
    nearer = [
        atoms_of(x).get_distance(0, 2) < atoms_of(x).get_distance(0, 1) for x in shapes
    ]
    assert any(nearer)  # the hydrogen at the nitrogen


def flatness(frame: Frame) -> float:
    """The height of ammonia's nitrogen above its hydrogens, Å."""
    first, second, third = frame.positions[1:]
    normal = np.cross(second - first, third - first)
    return float((frame.positions[0] - first) @ normal / np.linalg.norm(normal))
