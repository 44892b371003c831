"""The laws of averages, on networks that have hardly learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.records import LabelSet
from alloop.potentials.analytic import Morse
from benchmarks.accuracy.training.averaging import (
    PARTS,
    STEPS,
    Comparison,
    mean_weights,
)


def water(seed: int, frames: int) -> LabelSet:
    rng = np.random.default_rng(seed)
    frame = from_atoms(molecule("H2O"))
    moved = [
        replace(frame, positions=frame.positions + rng.normal(scale=0.05, size=(3, 3)))
        for _ in range(frames)
    ]
    truth = Morse().predict(pack_frames(moved))
    return LabelSet(pack_frames(moved), truth.energies, truth.forces)


@pytest.fixture(scope="module")
def given() -> Comparison:
    return Comparison(water(1, 12), water(2, 6), water(3, 5), seed=1, fewer=500)


def test_the_mean_of_forces_errs_no_more_than_the_networks_do_on_average(
    given: Comparison,
) -> None:
    pair = [given.one, given.fine_tuned(given.pretrained(101), 1050)]
    each = [given.error([state]) for state in pair]
    assert each[0] != each[1]
    assert given.error(pair) <= np.mean(each) * (1.0 + 1e-9)  # of rounding
    assert given.error([pair[0]] * 2) == pytest.approx(each[0])


def test_the_mean_of_weights_is_that_of_each_tensor(given: Comparison) -> None:
    other = given.fine_tuned(given.shared, 1001)
    mean = mean_weights([given.one, other]).network.state_dict()
    pairs = zip(
        given.one.network.state_dict().values(),
        other.network.state_dict().values(),
        strict=True,
    )
    for found, (first, second) in zip(mean.values(), pairs, strict=True):
        torch.testing.assert_close(found, (0.5 * (first + second)).to(found.dtype))


@pytest.mark.slow
def test_every_way_runs_and_has_its_steps(given: Comparison) -> None:
    row = {
        name: value for part in PARTS.values() for name, value in part(given).items()
    }
    assert {name.partition(",")[0] for name in row} == set(STEPS)
    assert all(np.min(value) > 0.0 for value in row.values())
