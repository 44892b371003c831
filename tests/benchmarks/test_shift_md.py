"""The benchmark of MD of a molecule left out."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.potentials.analytic import Morse
from benchmarks.accuracy.labelled_pool import DATA, read_pool
from benchmarks.accuracy.shift.dynamics import LeftOut, apart, distances, left_out
from benchmarks.accuracy.shift.sets import left_out_indices

H2 = LeftOut("H2", (Frame([1, 1], [[0, 0, 0], [0, 0, 0.74]]),), 1.5)
GIVEN = Namespace(walkers=3)


def test_the_molecule_is_one_that_was_left_out() -> None:
    pool = read_pool(DATA / "molecules.npz")
    found = left_out(pool, 0)
    assert pool.names.index(found.name) in left_out_indices(pool, 0)
    assert {len(frame) for frame in found.frames} == {6}  # methanol


@pytest.mark.parametrize("ensemble", ["NVT", "NVE"])
def test_distances_of_a_bond_that_holds_and_of_one_that_breaks(ensemble: str) -> None:
    steps = 400
    held = distances(Morse(4.7, 1.9, 0.74), H2, ensemble, GIVEN, steps)
    h = held.histogram()
    assert not held.lost
    assert h.sum() * 0.05 == pytest.approx(1.0)
    assert 0.05 * (h @ (0.05 * (np.arange(len(h)) + 0.5))) == pytest.approx(
        0.74, abs=0.05
    )
    assert apart(h, h) == 0.0
    assert 0.0 < apart(h, held.histogram(slice(1))) <= 2.0
    loose = distances(
        Morse(0.01, 1.9, 0.74), replace(H2, limit=1.2), ensemble, GIVEN, steps
    )
    assert loose.lost
