"""Delta learning on springs: the cheap level plus what a network adds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, Predictions, TrainingData
from alloop.core.roles import Potential, Trainer
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.trainers.delta import (
    DeltaPotential,
    DeltaTrainer,
    label_difference,
)
from alloop.training.trainers.pairwise import PairwiseTrainer


@dataclass(frozen=True)
class CheapSpring:
    """The cheap level of the fixtures: k = 3 eV/Å², r0 = 0.83 Å, base -30 eV."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        assert not descriptors
        bond = batch.positions[1::2] - batch.positions[::2]
        r = np.linalg.norm(bond, axis=1)
        pull = (3.0 * (r - 0.83) / r)[:, None] * bond
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        return Predictions(-30.0 + 1.5 * (r - 0.83) ** 2, forces)


def at_cheap(labels: LabelSet) -> LabelSet:
    said = CheapSpring().predict(labels.batch)
    return LabelSet(labels.batch, said.energies, said.forces)


@pytest.fixture
def data(cheap, expensive) -> TrainingData:
    """Eight expensive frames, six of them with cheap labels among others."""
    known = expensive(8)
    twins = select_labels(at_cheap(known), np.array([5, 1, 7, 0, 3, 2]))
    return TrainingData(joined_labels(cheap(4), twins), known)


def test_the_stand_in_is_the_fixtures_cheap_level(cheap) -> None:
    labels = cheap(5)
    np.testing.assert_allclose(at_cheap(labels).forces, labels.forces, atol=1e-7)


def test_differences_are_of_the_frames_that_have_both(data: TrainingData) -> None:
    found = label_difference(data.expensive, data.cheap)
    both = select_labels(data.expensive, np.array([0, 1, 2, 3, 5, 7]))
    assert [f.id for f in found.batch.frames()] == [f.id for f in both.batch.frames()]
    np.testing.assert_allclose(found.forces, both.forces - at_cheap(both).forces)
    np.testing.assert_allclose(found.energies, both.energies - at_cheap(both).energies)


def test_without_pairs_there_is_one_sentence(cheap, expensive) -> None:
    with pytest.raises(InputError, match="got none of 3; label the expensive frames"):
        label_difference(expensive(3), cheap(3))


def test_the_difference_is_learned_and_added(data: TrainingData, expensive) -> None:
    trainer = DeltaTrainer(PairwiseTrainer(), CheapSpring())
    assert isinstance(trainer, Trainer)
    potential, _ = trainer.train(data, None, seed=1)
    assert isinstance(potential, Potential)
    test = expensive(30, "test")
    said = potential.predict(test.batch)
    alone, _ = PairwiseTrainer(pretrain=False).train(data, None, seed=1)
    worse = np.abs(alone.predict(test.batch).forces - test.forces).mean()
    assert np.abs(said.forces - test.forces).mean() < worse
    assert np.abs(said.energies - test.energies).max() < 0.05


def test_only_the_difference_of_a_parent_is_handed_on(data: TrainingData) -> None:
    seen = []

    class Asked:
        def train(
            self, data: TrainingData, parent: Potential | None, seed: int
        ) -> tuple[Potential, dict[str, Any]]:
            seen.append((len(data.cheap), len(data.expensive), parent, seed))
            return CheapSpring(), {"stages": ["asked"]}

    trainer = DeltaTrainer(Asked(), CheapSpring())
    first, told = trainer.train(data, None, seed=4)
    trainer.train(data, first, seed=5)
    trainer.train(data, CheapSpring(), seed=6)
    assert told == {"stages": ["asked"]}
    assert [x[:2] for x in seen] == [(0, 6)] * 3
    assert isinstance(first, DeltaPotential)
    assert [x[2] for x in seen] == [None, first.difference, None]
