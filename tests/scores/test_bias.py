"""ASTEROID's bias by hand, and after the best common factor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.seeds import stream
from alloop.scores.bias import best_scale, bias, scaled_bias, unexplained

OFFSETS = np.array([0, 2, 3])
MODEL = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [-0.6, 0.6, 0.3]])


def test_bias_is_the_mean_over_a_frames_components() -> None:
    np.testing.assert_allclose(bias(MODEL, np.zeros((3, 3)), OFFSETS), [1.0, 0.5])


def test_no_frames_have_no_bias() -> None:
    assert bias(np.zeros((0, 3)), np.zeros((0, 3)), np.array([0])).shape == (0,)


@given(st.floats(0.2, 5.0))
def test_a_cheap_level_that_is_only_too_stiff_has_no_scaled_bias(factor: float) -> None:
    assert best_scale(MODEL, factor * MODEL) == pytest.approx(1.0 / factor)
    np.testing.assert_allclose(
        scaled_bias(MODEL, factor * MODEL, OFFSETS), 0.0, atol=1e-12
    )


def test_the_best_scale_is_that_of_least_squares() -> None:
    rng = stream(0, "forces")
    model, cheap = rng.standard_normal((2, 40, 3))
    (expected,) = np.linalg.lstsq(cheap.reshape(-1, 1), model.ravel())[0]
    assert best_scale(model, cheap) == pytest.approx(float(expected))


def test_cheap_forces_that_vanish_are_left_alone() -> None:
    assert best_scale(MODEL, np.zeros_like(MODEL)) == 1.0


def test_bias_that_geometry_explains_is_taken_away() -> None:
    rng = stream(1, "unexplained")
    descriptors = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 12))
    smooth = 0.5 + 0.3 * descriptors[:, 0]
    assert unexplained(smooth, descriptors) == pytest.approx(np.zeros(40), abs=1e-10)
    odd = smooth.copy()
    odd[17] += 0.4
    left = unexplained(odd, descriptors)
    assert left.argmax() == 17
    assert left[17] > 0.25


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_explain_little(frames: int) -> None:
    bias = np.arange(float(frames))
    left = unexplained(bias, np.ones((frames, 4)))
    assert left == pytest.approx(np.abs(bias - bias.mean()))
