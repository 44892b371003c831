"""Pairs of atoms against a direct count and against ASE's neighbour list."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.models.neighbours import SMALL, NeighbourPairs, is_static, neighbour_pairs

WATER = from_atoms(molecule("H2O"))
ETHANOL = from_atoms(molecule("CH3CH2OH"))


def crystal() -> Frame:
    atoms = bulk("Si") * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    return from_atoms(atoms)


def slab() -> Frame:
    atoms = bulk("Cu", cubic=True)
    atoms.pbc = (True, True, False)
    return from_atoms(atoms)


def cloud(atoms: int) -> Frame:
    rng = np.random.default_rng(0)
    return Frame(np.ones(atoms), rng.uniform(0, 12, (atoms, 3)))


def as_rows(found: NeighbourPairs) -> list[tuple[float, ...]]:
    shifts = np.round(found.shifts, 6) + 0.0
    rows = zip(found.centres, found.neighbours, *shifts.T, strict=True)
    return sorted(tuple(map(float, row)) for row in rows)


def test_small_molecules_list_all_pairs_both_ways() -> None:
    batch = pack_frames([WATER, ETHANOL])
    found = neighbour_pairs(batch, cutoff=1.0)
    assert is_static(batch)
    expected = {(i, j) for i in range(3) for j in range(3) if i != j}
    expected |= {(i, j) for i in range(3, 12) for j in range(3, 12) if i != j}
    rows = list(zip(found.centres.tolist(), found.neighbours.tolist(), strict=True))
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert not found.shifts.any()


@pytest.mark.parametrize("frame", [crystal(), slab(), cloud(SMALL + 6)])
def test_a_search_finds_what_ase_finds(frame: Frame) -> None:
    found = neighbour_pairs(pack_frames([frame]), cutoff=4.2)
    i, j, S = neighbor_list("ijS", to_atoms(frame), 4.2)
    expected = NeighbourPairs(i, j, S @ frame.cell)
    assert not is_static(pack_frames([frame]))
    assert as_rows(found) == as_rows(expected)


@pytest.mark.parametrize("strain", [0.2, -0.25])
def test_pairs_follow_a_cell_that_moves(strain: float) -> None:
    """Also into a cell that is much smaller than the cutoff."""
    start, sheared = (
        crystal(),
        np.eye(3)
        + strain * np.array([[1.0, 0.4, 0.0], [0.4, 1.0, 0.2], [0.0, 0.2, 1.0]]),
    )
    batch = pack_frames([start])
    before = len(neighbour_pairs(batch, cutoff=6.0).centres)
    moved = batch.with_cells(batch.positions @ sheared, batch.cells @ sheared)
    found = neighbour_pairs(moved, cutoff=6.0)
    atoms = to_atoms(start)
    atoms.set_cell(start.cell @ sheared)
    atoms.positions = start.positions @ sheared
    i, j, S = neighbor_list("ijS", atoms, 6.0)
    assert as_rows(found) == as_rows(NeighbourPairs(i, j, S @ atoms.cell.array))
    assert (len(found.centres) > before) == (strain < 0)


def test_frames_of_both_kinds_mix() -> None:
    mixed = neighbour_pairs(pack_frames([WATER, crystal(), ETHANOL]), cutoff=4.0)
    alone = neighbour_pairs(pack_frames([crystal()]), cutoff=4.0)
    middle = (mixed.centres >= 3) & (mixed.centres < 7)
    np.testing.assert_array_equal(mixed.centres[middle], alone.centres + 3)
    np.testing.assert_array_equal(mixed.neighbours[middle], alone.neighbours + 3)
    np.testing.assert_array_equal(mixed.shifts[middle], alone.shifts)
    assert (~middle).sum() == 6 + 72


def test_no_frames_and_single_atoms_have_no_pairs() -> None:
    atom = Frame(np.array([1]), np.zeros((1, 3)))
    for batch in (pack_frames([]), pack_frames([atom, atom])):
        found = neighbour_pairs(batch, cutoff=5.0)
        assert len(found.centres) == 0
        assert found.shifts.shape == (0, 3)
