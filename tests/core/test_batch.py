"""Frames packed flat and unpacked again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.batch import pack_frames, take_atoms

SEEDS = st.lists(st.integers(0, 2**32 - 1), max_size=6)
some = settings(max_examples=50, deadline=None, derandomize=True)


@some
@given(seeds=SEEDS)
def test_packing_and_unpacking_gives_the_frames_back(frame_of, seeds):
    frames = tuple(frame_of(seed) for seed in seeds)
    batch = pack_frames(frames)
    assert batch.frames() == frames
    assert len(batch) == len(frames)
    assert list(batch.sizes) == [len(frame) for frame in frames]
    assert batch.positions.shape == (sum(map(len, frames)), 3)


@some
@given(seeds=SEEDS, data=st.data())
def test_taking_is_packing_the_chosen_frames(frame_of, seeds, data):
    frames = [frame_of(seed) for seed in seeds]
    places = st.integers(0, len(frames) - 1)
    chosen = data.draw(st.lists(places, max_size=8)) if frames else []
    taken = pack_frames(frames).select(chosen)
    wanted = pack_frames([frames[index] for index in chosen])
    for name in ("numbers", "positions", "offsets", "charges", "spins", "cells", "pbc"):
        one, other = getattr(taken, name), getattr(wanted, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape


@some
@given(seeds=SEEDS.filter(bool))
def test_owners_and_spans_agree(frame_of, seeds):
    batch = pack_frames([frame_of(seed) for seed in seeds])
    for index, span in enumerate(batch.atom_slices()):
        frame = batch.frame(index)
        np.testing.assert_array_equal(frame.positions, batch.positions[span])
        np.testing.assert_array_equal(
            np.flatnonzero(batch.frame_index == index), _range(span)
        )


def _range(span):
    return np.arange(span.start, span.stop)


def test_nothing_makes_an_empty_batch():
    batch = pack_frames([])
    assert (len(batch), batch.frames()) == (0, ())
    assert batch.positions.shape == (0, 3)
    assert batch.cells.shape == (0, 3, 3)
    assert batch.pbc.shape == (0, 3)
    assert list(batch.offsets) == [0]
    assert len(batch.frame_index) == 0


def test_moved_molecules_keep_everything_else(frame_of):
    batch = pack_frames([frame_of(1), frame_of(2)])
    moved = batch.with_positions(batch.positions + 1.0)
    np.testing.assert_allclose(moved.positions - batch.positions, 1.0)
    assert moved.numbers is batch.numbers
    assert moved.frame(1).charge == batch.frame(1).charge


def test_atoms_are_taken_frame_after_frame():
    offsets = np.array([0, 2, 3, 6])
    assert list(take_atoms(offsets, [2, 0])) == [3, 4, 5, 0, 1]
    assert list(take_atoms(offsets, [])) == []


def test_a_frame_beyond_the_last_is_an_error(frame_of):
    with pytest.raises(IndexError):
        pack_frames([frame_of(1)]).frame(1)
