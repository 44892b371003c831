"""ASTEROID's bias by hand, and after the best common factor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.prediction_errors import best_scale, frame_bias, scaled_bias
from alloop.core.seeds import random_stream

OFFSETS = np.array([0, 2, 3])
MODEL = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [-0.6, 0.6, 0.3]])


def test_bias_is_the_mean_over_a_frames_components() -> None:
    np.testing.assert_allclose(frame_bias(MODEL, np.zeros((3, 3)), OFFSETS), [1.0, 0.5])


def test_no_frames_have_no_bias() -> None:
    none = np.zeros((0, 3))
    assert frame_bias(none, none, np.array([0])).shape == (0,)


@given(st.floats(0.2, 5.0))
def test_a_cheap_level_that_is_only_too_stiff_has_no_scaled_bias(factor: float) -> None:
    assert best_scale(MODEL, factor * MODEL) == pytest.approx(1.0 / factor)
    np.testing.assert_allclose(
        scaled_bias(MODEL, factor * MODEL, OFFSETS), 0.0, atol=1e-12
    )


def test_the_best_scale_is_that_of_least_squares() -> None:
    rng = random_stream(0, "forces")
    model, cheap = rng.standard_normal((2, 40, 3))
    (expected,) = np.linalg.lstsq(cheap.reshape(-1, 1), model.ravel())[0]
    assert best_scale(model, cheap) == pytest.approx(float(expected))


def test_cheap_forces_that_vanish_are_left_alone() -> None:
    assert best_scale(MODEL, np.zeros_like(MODEL)) == 1.0
