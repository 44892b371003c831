"""The sets of the benchmark of shifts: what is left out stays out."""

from argparse import Namespace

import numpy as np

from alloop.core.atoms import hill_formula
from benchmarks.accuracy.shift_sets import left_out_molecules

GIVEN = Namespace(train=100, test=40, held=30, ratio=10.0)


def formulas(labels) -> set[str]:
    return {hill_formula(frame) for frame in labels.batch.frames()}


def test_whole_molecules_are_left_out() -> None:
    found = left_out_molecules(GIVEN, seed=0)
    assert len(found.train.cheap) == len(found.train.expensive) == 100
    assert (len(found.held_out), len(found.cheap), len(found.systems)) == (30, 40, 40)
    assert len(np.unique(found.systems)) <= 8
    ids = [
        {frame.id for frame in labels.batch.frames()}
        for labels in (found.train.expensive, found.held_out, found.expensive)
    ]
    assert not ids[0] & ids[1]
    assert not ids[2] & (ids[0] | ids[1])
    assert not ids[2] & {frame.id for frame in found.bought.batch.frames()}
    inside = formulas(found.train.cheap)
    assert len(formulas(found.expensive) - inside) >= 5  # isomers share a formula
    other = left_out_molecules(GIVEN, seed=1)
    assert formulas(other.expensive) != formulas(found.expensive)
