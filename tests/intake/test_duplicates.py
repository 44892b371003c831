"""Test frames that training has seen are found, whatever their orientation."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.frame import Frame
from alloop.intake import duplicate_frames, kabsch_rotation, largest_shift, read_labels

ETHANOL = Path(__file__).parents[3] / "shared" / "data" / "md17_ccsd" / "ethanol.npz"


def molecule(positions, numbers=(6, 8, 1, 1), **facts):
    return Frame(np.array(numbers)[: len(positions)], positions, **facts)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), mirrored=st.booleans())
def test_turned_shifted_and_mirrored_copies_are_duplicates(water, seed, mirrored):
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(4, 3))
    copy = water.turned(rng, shape) * np.array([-1.0 if mirrored else 1.0, 1, 1])
    noisy = copy + rng.uniform(-2e-4, 2e-4, (4, 3))
    assert duplicate_frames([molecule(shape)], [molecule(noisy)]) == [(0, 0)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_frames_that_differ_by_more_than_the_tolerance_are_not(water, seed):
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(4, 3))
    bond = shape[1] - shape[0]
    other = shape.copy()
    other[1] += 5e-3 * bond / np.linalg.norm(bond)
    turned = molecule(water.turned(rng, other))
    assert duplicate_frames([molecule(shape)], [turned]) == []
    assert duplicate_frames([molecule(shape)], [turned], tolerance=0.01) == [(0, 0)]


def test_all_pairs_are_found_among_many(water):
    frames = [Frame(water.numbers, x) for x in water.positions]
    rng = np.random.default_rng(1)
    copies = [
        Frame(water.numbers, water.turned(rng, water.positions[i])) for i in (7, 3, 7)
    ]
    assert duplicate_frames(copies, frames) == [(0, 7), (1, 3), (2, 7)]
    assert duplicate_frames(frames[:2], frames[2:]) == []


def test_other_molecules_charges_and_orders_are_no_duplicates():
    shape = np.random.default_rng(2).normal(size=(4, 3))
    known = molecule(shape)
    others = [
        molecule(shape, charge=1),
        molecule(shape, spin=2),
        molecule(shape, numbers=(6, 7, 1, 1)),
        molecule(shape[[0, 1, 3, 2]]),
        molecule(shape[:3]),
    ]
    assert duplicate_frames(others, [known]) == []


def test_periodic_frames_are_compared_by_id():
    shape = np.random.default_rng(3).normal(size=(4, 3))
    facts = {"cell": 9 * np.eye(3), "pbc": (True, True, True)}
    frame, moved = molecule(shape, **facts), molecule(shape + 0.1, **facts)
    assert duplicate_frames([frame, moved], [frame]) == [(0, 0)]


def test_single_atoms_are_all_the_same():
    here, there = Frame([1], [[0, 0, 0]], spin=1), Frame([1], [[4, 5, 6]], spin=1)
    assert duplicate_frames([here], [there]) == [(0, 0)]


def test_nothing_has_no_duplicates(water):
    frame = Frame(water.numbers, water.positions[0])
    assert duplicate_frames([], [frame]) == duplicate_frames([frame], []) == []


def test_superposition_finds_the_rotation_that_was_applied(water):
    rng = np.random.default_rng(4)
    shape = rng.normal(size=(5, 3))
    shape -= shape.mean(axis=0)
    turned = water.turned(rng, shape)
    turned -= turned.mean(axis=0)
    matrix = kabsch_rotation(shape, turned)
    np.testing.assert_allclose(turned @ matrix, shape, atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_mirror_image_needs_a_mirror():
    shape = np.random.default_rng(5).normal(size=(5, 3))
    shape -= shape.mean(axis=0)
    image = shape * [1, 1, -1]
    left = np.abs(image @ kabsch_rotation(shape, image) - shape).max()
    assert left > 0.1
    np.testing.assert_allclose(
        image @ kabsch_rotation(shape, image, mirror=True), shape, atol=1e-12
    )
    assert largest_shift(shape, image) < 1e-12


@pytest.mark.skipif(not ETHANOL.exists(), reason=f"the data are not at {ETHANOL}")
def test_frames_that_two_sets_of_ethanol_share_are_found():
    coupled, density = (
        read_labels(ETHANOL, energy_unit="kcal/mol", energy_key=f"{name}_E").frames
        for name in ("cc", "dft2")
    )
    assert len(duplicate_frames(coupled, density)) == 6
