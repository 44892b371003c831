"""A frame is its content: equal bytes, equal id."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.frame import DECIMALS, Frame, round_positions

SEEDS = st.integers(0, 2**32 - 1)
WATER = np.array([[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]])


def test_the_id_is_the_same_in_every_process_and_version():
    """Stores are full of these ids: they must never change."""
    frame = Frame(np.array([8, 1, 1]), WATER, charge=1, spin=1)
    assert frame.id == "b3f2a5ae685eeb57373b2b49a9778d82"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_a_frame_made_again_is_the_same_frame(frame_of, seed):
    one, other = frame_of(seed), frame_of(seed)
    assert one == other
    assert hash(one) == hash(other)
    again = Frame(one.numbers, one.positions, one.charge, one.spin, one.cell, one.pbc)
    assert again.id == one.id
    assert len(one.id) == 32
    int(one.id, 16)


@pytest.mark.parametrize(
    "change",
    [
        {"charge": 1},
        {"spin": 2},
        {"cell": np.eye(3)},
        {"pbc": (True, False, False)},
        {"numbers": np.array([8, 1, 2])},
        {"positions": WATER + 1e-7},
        {"positions": WATER[[0, 2, 1]]},
    ],
)
def test_whatever_changes_changes_the_id(change):
    facts = {"numbers": np.array([8, 1, 1]), "positions": WATER}
    assert Frame(**facts) != Frame(**(facts | change))


def test_positions_are_rounded_at_birth():
    frame = Frame(np.array([8, 1, 1]), WATER + 4e-9)
    assert frame == Frame(np.array([8, 1, 1]), WATER)
    np.testing.assert_array_equal(frame.positions, WATER)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_rounding_twice_is_rounding_once(seed):
    values = np.random.default_rng(seed).normal(0, 100, 40)
    once = round_positions(values)
    np.testing.assert_array_equal(round_positions(once), once)
    assert np.abs(once - values).max() <= 0.5 * 10**-DECIMALS * (1 + 1e-6)


def test_minus_zero_is_zero():
    left, right = Frame([1], [[0.0, 0.0, -0.0]]), Frame([1], [[0.0, -1e-9, 0.0]])
    assert left.id == right.id
    assert not np.signbit(right.positions).any()


def test_a_frame_cannot_be_changed():
    positions = WATER.copy()
    frame = Frame(np.array([8, 1, 1]), positions)
    positions[0, 0] = 5.0
    assert frame.positions[0, 0] == 0.0
    for array in (frame.numbers, frame.positions, frame.cell):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        frame.charge = 1  # type: ignore[misc]


def test_two_frames_never_share_a_cell():
    assert Frame([1], [[0, 0, 0]]).cell is not Frame([1], [[0, 0, 0]]).cell


@pytest.mark.parametrize("shape", [(2, 3), (9,), (3, 2)])
def test_positions_must_fit_the_atoms(shape):
    with pytest.raises(ValueError, match=r"expected positions of shape \(3, 3\)"):
        Frame(np.array([8, 1, 1]), np.zeros(shape))


def test_other_number_types_give_the_same_frame():
    small = Frame(np.array([8, 1, 1], dtype=np.uint8), WATER.tolist())
    assert small == Frame([8, 1, 1], WATER)
    assert small != "a frame"
    assert len(small) == 3


def test_a_number_of_no_element_is_refused_without_a_warning():
    with pytest.raises(ValueError, match="one is not finite"):
        Frame(np.array([1.0, np.nan]), np.zeros((2, 3)))
