"""The benchmark of limits of errors, on rows whose truth is known."""

import numpy as np
import pytest

from benchmarks.accuracy.uncertainty.calibration import coverage_row


def _row(seed: int) -> dict:
    """Frames whose error is their surprise times a factor of about 1.5."""
    rng = np.random.default_rng(seed)

    def frames(n: int) -> dict[str, list[float]]:
        surprise = rng.lognormal(0.0, 1.5, n)
        errors = surprise * rng.lognormal(0.0, 0.4, n)
        return {"surprise": surprise.tolist(), "errors": errors.tolist()}

    return {"checked": frames(400), "all": frames(1000)}


def test_limits_hold_and_are_sharper_than_one_limit_for_all_frames() -> None:
    found = coverage_row([_row(0), _row(1)], "all", 100, 0.9)
    assert float(found["low"]) <= float(found["below"]) <= float(found["high"])
    assert float(found["below"]) == pytest.approx(0.9, abs=0.03)
    assert found["limit/error"] == pytest.approx(np.exp(1.28 * 0.4), rel=0.1)
    assert found["one limit/error"] > 4.0
    assert float(found["of those above"]) > 0.9  # the limit is above a large error
