"""Delta learning on springs: the cheap level plus what is learned beyond it."""

from dataclasses import dataclass

import numpy as np
import pytest

from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, Predictions, TrainingData
from alloop.core.roles import Potential
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.trainers.pairwise import PairwiseTrainer
from benchmarks.accuracy.asteroid.delta import DeltaPotential, label_difference


@dataclass(frozen=True)
class Spring:
    """A spring between two atoms: stiffness in eV/Å², length in Å, energy in eV."""

    stiffness: float
    length: float
    base: float

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        assert not descriptors
        bond = batch.positions[1::2] - batch.positions[::2]
        r = np.linalg.norm(bond, axis=1)
        pull = (self.stiffness * (r - self.length) / r)[:, None] * bond
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        energies = self.base + self.stiffness / 2 * (r - self.length) ** 2
        return Predictions(energies, forces)


CHEAP, EXPENSIVE = Spring(3.0, 0.83, -30.0), Spring(4.0, 0.8, -31.0)


def labelled(level: Spring, count: int, seed: int = 0) -> LabelSet:
    lengths = np.random.default_rng(seed).uniform(0.6, 1.1, count)
    batch = pack_frames([Frame([1, 1], [[0, 0, 0], [0, 0, x]]) for x in lengths])
    said = level.predict(batch)
    return LabelSet(batch, said.energies, said.forces)


@pytest.fixture
def data() -> TrainingData:
    """Eight expensive frames, six of them with cheap labels among others."""
    twins = select_labels(labelled(CHEAP, 8), np.array([5, 1, 7, 0, 3, 2]))
    cheap = joined_labels(labelled(CHEAP, 4, seed=1), twins)
    return TrainingData(cheap, labelled(EXPENSIVE, 8))


def test_differences_are_of_the_frames_that_have_both(data: TrainingData) -> None:
    found = label_difference(data.expensive, data.cheap)
    both = np.array([0, 1, 2, 3, 5, 7])
    known, cheap = (select_labels(labelled(x, 8), both) for x in (EXPENSIVE, CHEAP))
    assert [f.id for f in found.batch.frames()] == [f.id for f in known.batch.frames()]
    np.testing.assert_allclose(found.forces, known.forces - cheap.forces)
    np.testing.assert_allclose(found.energies, known.energies - cheap.energies)


def test_without_pairs_there_is_one_sentence() -> None:
    with pytest.raises(InputError, match="got none of 3; label the expensive frames"):
        label_difference(labelled(EXPENSIVE, 3), labelled(CHEAP, 3, seed=1))


def test_the_difference_is_learned_and_added(data: TrainingData) -> None:
    differences = label_difference(data.expensive, data.cheap)
    nothing = LabelSet.of([], [], [])
    found, _ = PairwiseTrainer().train(TrainingData(nothing, differences), None, seed=1)
    potential = DeltaPotential(CHEAP, found)
    assert isinstance(potential, Potential)
    test = labelled(EXPENSIVE, 30, seed=2)
    said = potential.predict(test.batch)
    alone, _ = PairwiseTrainer(pretrain=False).train(data, None, seed=1)
    worse = np.abs(alone.predict(test.batch).forces - test.forces).mean()
    assert np.abs(said.forces - test.forces).mean() < worse
    assert np.abs(said.energies - test.energies).max() < 0.05
