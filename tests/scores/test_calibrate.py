"""Thresholds and their promise."""

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.seeds import random_stream
from alloop.scores.calibrate import (
    LEAST,
    calibrate_threshold,
    conformal_quantile,
    surprise_threshold,
)


def test_a_new_score_exceeds_the_conformal_quantile_as_seldom_as_promised() -> None:
    rng = random_stream(0, "coverage")
    draws = rng.gamma(1.0, size=(20_000, 40))
    below = [row[-1] <= conformal_quantile(row[:-1], 0.9) for row in draws]
    assert np.mean(below) == pytest.approx(0.9, abs=0.007)


def test_the_conformal_quantile_is_an_order_statistic_or_infinite() -> None:
    scores = np.arange(1.0, 100.0)
    assert conformal_quantile(scores, 0.99) == 99.0
    assert conformal_quantile(scores, 0.5) == 50.0
    assert conformal_quantile(scores[:-1], 0.99) == np.inf


def test_calibration_says_how_it_was_done_and_how_many_it_needs() -> None:
    rng = random_stream(1, "held out")
    many = calibrate_threshold(rng.standard_normal(99), 0.99)
    assert (many.method, many.n, many.needed) == ("conformal", 99, 99)
    assert many.reason == "conformal on 99 held-out frames"
    some = calibrate_threshold(rng.standard_normal(98), 0.99)
    assert some.method == "quantile"
    assert "99 would promise" in some.reason
    few = calibrate_threshold(rng.standard_normal(LEAST - 1), 0.99)
    assert few.value is None
    assert few.reason.startswith("not calibrated: 9 held-out frames")


def test_the_threshold_is_the_calibrations_value() -> None:
    scores = random_stream(2, "held out").standard_normal(50)
    assert surprise_threshold(scores, 0.9) == conformal_quantile(scores, 0.9)
    assert surprise_threshold(scores, 0.99) == pytest.approx(np.quantile(scores, 0.99))
    assert surprise_threshold(scores[:3], 0.99) is None


@pytest.mark.parametrize("level", [0.0, 1.0, 99.0])
def test_a_quantile_outside_zero_and_one_is_refused(level: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        calibrate_threshold(np.zeros(20), level)
