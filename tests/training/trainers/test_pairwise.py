"""Least squares on springs, which pair functions can follow."""

import json

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.records import TrainingData
from alloop.core.roles import Trainer
from alloop.training.trainers.pairwise import PairwiseTrainer


def force_mae(potential, labels) -> float:
    return float(np.abs(potential.predict(labels.batch).forces - labels.forces).mean())


def test_it_is_a_trainer() -> None:
    assert isinstance(PairwiseTrainer(), Trainer)


def test_springs_are_learned_to_a_few_millielectronvolts(cheap, expensive) -> None:
    test = expensive(20, "test")
    data = TrainingData(cheap(30), expensive(12))
    potential, _ = PairwiseTrainer().train(data, None, seed=0)
    said = potential.predict(test.batch)
    assert force_mae(potential, test) < 0.01
    np.testing.assert_allclose(said.energies, test.energies, atol=0.01)


def test_cheap_labels_help_where_expensive_ones_are_few(cheap, expensive) -> None:
    test = expensive(30, "test")
    data = TrainingData(cheap(40), expensive(2))
    both, _ = PairwiseTrainer().train(data, None, seed=0)
    alone, _ = PairwiseTrainer(pretrain=False).train(data, None, seed=0)
    assert force_mae(both, test) < force_mae(alone, test)


def test_the_bias_is_that_of_the_springs(cheap, expensive) -> None:
    data = TrainingData(cheap(30), expensive(12))
    _, told = PairwiseTrainer().train(data, None, seed=0)
    r = 2.0 * np.abs(data.cheap.batch.positions[::2, 0])
    truth = np.abs(4.0 * (r - 0.8) - 3.0 * (r - 0.83)) / 3.0
    np.testing.assert_allclose(told["bias"], truth, atol=0.02)
    assert told["stages"] == ["teacher", "pretraining", "fine-tuning"]
    assert json.loads(json.dumps(told)) == told


def test_without_a_gamma_cheap_labels_count_alike(cheap, expensive) -> None:
    data = TrainingData(cheap(30), expensive(12))
    plain, told = PairwiseTrainer(gamma=None).train(data, None, seed=0)
    weighed, _ = PairwiseTrainer().train(data, None, seed=0)
    assert told["stages"] == ["pretraining", "fine-tuning"]
    assert "bias" not in told
    assert not np.array_equal(plain.coefficients, weighed.coefficients)


def test_the_same_labels_give_the_same_bits(cheap, expensive) -> None:
    data = TrainingData(cheap(10), expensive(5))
    first, again = (PairwiseTrainer().train(data, None, s)[0] for s in (0, 1))
    assert first.coefficients.tobytes() == again.coefficients.tobytes()


def test_one_level_alone_is_enough(cheap, expensive, none) -> None:
    dear, told = PairwiseTrainer().train(TrainingData(none, expensive(12)), None, 0)
    assert told["stages"] == ["standard"]
    assert force_mae(dear, expensive(9, "test")) < 0.02
    poor, told = PairwiseTrainer().train(TrainingData(cheap(12), none), None, 0)
    assert told["stages"] == ["pretraining"]
    assert force_mae(poor, cheap(9, "test")) < 0.02


def test_no_labels_are_refused(none) -> None:
    with pytest.raises(InputError, match="label some frames first"):
        PairwiseTrainer().train(TrainingData(none, none), None, 0)
