"""ASTEROID's weights against hand-made numbers and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.training.bias_weights import (
    Gamma,
    bias_weights,
    effective_size,
    guarded_weights,
)

# A busy machine is no failure of these laws.
unhurried = settings(deadline=None)

BIASES = st.lists(st.floats(0.0, 10.0), min_size=2, max_size=40).map(np.array)


@unhurried
@given(BIASES, st.floats(0.05, 10.0))
def test_weights_have_mean_one_and_the_ratio_of_asteroid(
    bias: np.ndarray, gamma: float
) -> None:
    w = bias_weights(bias, gamma)
    assert w.mean() == pytest.approx(1.0)
    expected = np.exp(-(bias - bias.min()) / gamma)
    np.testing.assert_allclose(w / w.max(), expected, rtol=1e-9)


@unhurried
@given(BIASES, st.floats(-5.0, 5.0))
def test_a_bias_common_to_all_frames_weighs_nothing(
    bias: np.ndarray, constant: float
) -> None:
    np.testing.assert_allclose(
        bias_weights(bias + constant, 0.3), bias_weights(bias, 0.3), rtol=1e-9
    )


def test_the_effective_size_counts_the_frames_that_count() -> None:
    assert effective_size(np.ones(7)) == pytest.approx(7.0)
    assert effective_size(np.array([1.0, 0.0, 0.0])) == pytest.approx(1.0)


@unhurried
@given(BIASES, st.floats(0.001, 5.0), st.floats(0.1, 0.95))
def test_gamma_is_raised_until_enough_frames_count(
    bias: np.ndarray, multiple: float, least: float
) -> None:
    weights, gamma = guarded_weights(bias, Gamma(multiple), least)
    assert effective_size(weights) >= least * len(bias)
    assert gamma >= Gamma(multiple).in_ev_per_angstrom(bias)


def test_a_gamma_that_is_wide_enough_is_left_alone() -> None:
    bias = np.linspace(0.1, 0.2, 20)
    weights, gamma = guarded_weights(bias, Gamma(0.5, of_spread=False), 0.5)
    assert gamma == 0.5
    assert weights[0] > weights[-1]


def test_biases_that_are_alike_give_uniform_weights() -> None:
    alike = np.full(5, 0.7)
    rounded = alike * (1.0 + 1e-7 * np.arange(5))
    for bias in (alike, rounded, 0.0 * alike):
        weights, gamma = guarded_weights(bias, Gamma(2.0), 0.5)
        np.testing.assert_array_equal(weights, np.ones(5))
        assert gamma == 0.0
