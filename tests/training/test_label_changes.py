"""Labels made to resemble another level's, and sets of both."""

import numpy as np
import pytest

from alloop.core.records import Predictions
from alloop.training.label_changes import (
    add_predictions,
    expensive_repeats,
    joined_labels,
    mixed_labels,
    scaled_labels,
    select_labels,
)


def test_a_factor_is_one_for_energies_and_forces(cheap) -> None:
    labels = cheap(4)
    twice = scaled_labels(labels, 2.0)
    np.testing.assert_array_equal(twice.energies, 2.0 * labels.energies)
    np.testing.assert_array_equal(twice.forces, 2.0 * labels.forces)


def test_what_a_potential_says_is_added_and_taken_away(cheap) -> None:
    labels = cheap(4)
    said = Predictions(np.arange(4.0), np.ones((8, 3)))
    there = add_predictions(labels, said)
    np.testing.assert_array_equal(there.energies - labels.energies, np.arange(4.0))
    back = add_predictions(there, said, -1.0)
    np.testing.assert_allclose(back.forces, labels.forces)


@pytest.mark.parametrize(
    ("cheap", "expensive", "mix", "times"),
    [(1000, 200, 0.5, 5), (1000, 200, 0.8, 20), (10, 200, 0.5, 1), (10, 0, 0.5, 0)],
)
def test_expensive_frames_come_often_enough(
    cheap: int, expensive: int, mix: float, times: int
) -> None:
    assert expensive_repeats(cheap, expensive, mix) == times


def test_a_mixed_set_has_the_share_and_keeps_the_cheap_weights(
    cheap, expensive
) -> None:
    few, many = expensive(3), cheap(12)
    given = np.linspace(0.5, 1.5, 12)
    both, weights = mixed_labels(many, few, 0.5, given)
    assert len(both) == len(weights) == 24
    assert weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[:12] / weights[0], given / given[0])
    np.testing.assert_array_equal(both.forces[:24], many.forces)
    for times in range(4):
        part = select_labels(both, 12 + 3 * times + np.arange(3))
        np.testing.assert_array_equal(part.energies, few.energies)
        assert [f.id for f in part.batch.frames()] == [f.id for f in few.batch.frames()]


def test_sets_stand_one_after_the_other(cheap, expensive) -> None:
    whole = joined_labels(cheap(2), expensive(3))
    np.testing.assert_array_equal(
        select_labels(whole, np.array([4, 0])).energies,
        [expensive(3).energies[2], cheap(2).energies[0]],
    )
