"""The sets of the benchmark of shifts: what is left out stays out."""

from argparse import Namespace

import numpy as np

from alloop.core.atoms import hill_formula
from alloop.refine.shifts import force_norms
from benchmarks.accuracy.shift.sets import (
    high_forces_of_ethanol,
    left_out_molecules,
    rare_element,
    stretched_bonds,
)

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


def largest_force_norms(labels) -> float:
    return float(force_norms(labels.batch, labels.forces).max())


def test_forces_of_test_frames_lie_above_those_trained_on() -> None:
    found = high_forces_of_ethanol(GIVEN, seed=0)
    most = largest_force_norms(found.train.expensive)
    test = found.expensive
    assert (force_norms(test.batch, test.forces) > most).all()
    assert largest_force_norms(found.held_out) <= most + 0.1


def test_bonds_are_longer_than_those_trained_on() -> None:
    found = stretched_bonds(GIVEN, seed=0)

    def longest(labels, first: int, second: int) -> float:
        positions = (x.positions for x in labels.batch.frames())
        return max(np.linalg.norm(r[first] - r[second]) for r in positions)

    for bond in ((0, 1), (1, 2)):  # C-C and C-O
        own = longest(found.train.expensive, *bond)
        assert longest(found.expensive, *bond) > 1.15 * own


def test_the_rare_element_is_rare() -> None:
    found = rare_element(GIVEN, seed=0)
    fluorine = [9 in x.numbers for x in found.train.expensive.batch.frames()]
    assert (sum(fluorine), len(fluorine)) == (6, 100)
    assert all(9 in x.numbers for x in found.expensive.batch.frames())
    assert not any(9 in x.numbers for x in found.held_out.batch.frames())
