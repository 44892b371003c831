"""Stationary points of a surface whose own are known."""

import pytest

from benchmarks.accuracy.exploration.barriers import compared, point_on
from tests.md.test_reaction_path import BARRIER, WELL, DoubleWell, pair


def test_newton_finds_the_saddle_and_both_minima() -> None:
    surface = DoubleWell()
    saddle, *minima = (point_on(pair(x), surface) for x in (2.9, 2.0, 4.0))
    assert saddle.distances == pytest.approx([3.0], abs=1e-3)
    assert saddle.energy == pytest.approx(BARRIER, abs=1e-5)
    assert saddle.modes.wavenumbers[0] < 0.0
    for point, length in zip(minima, (3.0 - WELL, 3.0 + WELL), strict=True):
        assert point.distances == pytest.approx([length], abs=1e-3)
        assert point.force < 1e-3
        assert point.modes.wavenumbers[0] > 0.0
    row = compared(minima[0], minima[1])
    assert row["of a distance, Å"] == pytest.approx(2 * WELL, abs=1e-2)
    assert row["largest difference, cm⁻¹"] == pytest.approx(0.0, abs=1.0)
