"""Replay in fine-tuning: exact shares, references, and less forgetting."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet, TrainingData
from alloop.core.units import Floats
from alloop.labels.toy import label_with_toy, toy_level
from alloop.models.settings import pretrained as pretrained_kind
from alloop.potentials.learned import LearnedPotential
from alloop.training.replay import Replay, network_only, replayed_labels, with_replay
from alloop.training.replay_trainer import replaying_trainer
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.pairwise import PairwiseTrainer
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer

OLD, NEW = toy_level(), toy_level(stiffness=0.8, stretch=0.03, offset=2.0)
NOTHING = LabelSet.of([], [], [])
SETTINGS = {"channels": 8, "cutoff": 3.0}


def frames(name: str, count: int, seed: int) -> list[Frame]:
    rng, atoms = np.random.default_rng(seed), molecule(name)
    return [
        Frame(atoms.numbers, atoms.positions + rng.normal(0.0, 0.05, (len(atoms), 3)))
        for _ in range(count)
    ]


def labelled(found: list[Frame], level: object = OLD) -> LabelSet:
    settings = level.settings  # type: ignore[attr-defined]
    said = [label_with_toy(frame, settings) for frame in found]
    return LabelSet.of(found, [x.energy for x in said], [x.forces for x in said])


def trainer(steps: int, lr: float, start: str) -> StagedTrainer:
    stages = standard_stages(steps, Schedule(lr, 8, warmup=5, compile=False))
    stages = tuple(replace(stage, start=start) for stage in stages)
    return StagedTrainer("schnet", SETTINGS, stages)


@pytest.fixture(scope="module")
def pretrained() -> LearnedPotential:
    """A network that knows carbon monoxide and water at the old level."""
    both = [*frames("CO", 30, 1), *frames("H2O", 30, 2)]
    data = TrainingData(NOTHING, labelled(both))
    return trainer(150, 5e-3, "scratch").train(data, None, 0)[0]


def force_error(potential: LearnedPotential, labels: LabelSet) -> float:
    return prediction_errors(
        potential.covering(labels.batch).predict(labels.batch), labels
    ).force_mae


@pytest.mark.parametrize(("own", "other"), [(4, 10), (30, 7)])
def test_weights_make_the_share_exact(own: int, other: int) -> None:
    rng = np.random.default_rng(0)
    weights: Floats = rng.uniform(0.5, 1.5, own)
    weights /= weights.mean()
    new, old = labelled(frames("H2O", own, 3)), labelled(frames("CO", other, 4))
    joined, found = with_replay(new, weights, old, 0.3)
    sizes = joined.batch.sizes
    by_atoms = found * sizes  # as the loss of forces counts frames
    assert len(joined) == len(found)
    assert by_atoms.sum() == pytest.approx(sizes.sum())
    assert by_atoms[sizes == 2].sum() == pytest.approx(0.3 * by_atoms.sum())
    assert found.min() > 0.2


def test_the_original_labels_frames_in_its_own_zero_of_energy(
    pretrained: LearnedPotential,
) -> None:
    batch = pack_frames(frames("CO", 4, 5))
    found = replayed_labels(Replay(batch, 0.5), pretrained)
    network = network_only(pretrained.frozen_network, batch, pretrained.scale)
    assert np.array_equal(found.labels.forces, network.predict(batch).forces)
    whole, rest = pretrained.predict(batch), pretrained.repulsion
    assert rest is not None
    expected = whole.forces - rest.predict(batch).forces
    assert np.allclose(found.labels.forces, expected, atol=1e-6)


def test_labels_of_another_zero_of_energy_are_the_same_replay(
    pretrained: LearnedPotential,
) -> None:
    old = labelled([*frames("CO", 4, 5), *frames("H2O", 4, 6)])
    shifted = replace(old, energies=old.energies - 500.0 * old.batch.sizes)
    one, other = (replayed_labels(Replay(x, 0.5), pretrained) for x in (old, shifted))
    assert np.allclose(one.labels.energies, other.labels.energies, atol=1e-8)
    assert (
        np.abs(
            one.labels.energies
            - network_only(pretrained.frozen_network, old.batch, pretrained.scale)
            .predict(old.batch)
            .energies
        ).max()
        < 1.0
    )


Tuned = Callable[[Replay | None], list[LearnedPotential]]


@pytest.fixture(scope="module")
def tuned(pretrained: LearnedPotential) -> Tuned:
    """Three generations on a growing number of labels of water at the new level."""

    def generations(replay: Replay | None) -> list[LearnedPotential]:
        tuning, found = trainer(30, 5e-3, "parent"), [pretrained]
        if replay is not None:
            tuning = tuning.replaying(replay)
        for count in (6, 12, 18):
            data = TrainingData(NOTHING, labelled(frames("H2O", 18, 7)[:count], NEW))
            found.append(tuning.train(data, found[-1], 0)[0])
        return found[1:]

    return generations


def test_replay_reduces_forgetting_over_generations(
    pretrained: LearnedPotential, tuned: Tuned
) -> None:
    old = labelled(frames("CO", 12, 8))
    new = labelled(frames("H2O", 12, 9), NEW)
    bare = pack_frames(frames("CO", 20, 10))
    plain = tuned(None)
    replayed = tuned(Replay(bare, 0.5, pretrained))
    before = force_error(pretrained, old)
    for without, own in zip(plain, replayed, strict=True):
        forgotten = force_error(without, old) - before
        assert forgotten > 0.0
        assert force_error(own, old) - before < 0.5 * forgotten
    found = prediction_errors(replayed[-1].predict(new.batch), new)
    assert found.force_mae < 0.5 * force_error(pretrained, new)
    assert found.energy_mae < 0.3  # eV, where the levels are 2 eV apart


@pytest.mark.slow
def test_labels_from_a_file_are_replayed_as_well(
    pretrained: LearnedPotential, tuned: Tuned
) -> None:
    old = labelled(frames("CO", 12, 8))
    plain = tuned(None)
    given = tuned(Replay(labelled(frames("CO", 20, 10)), 0.5, pretrained))
    assert force_error(given[-1], old) < 0.5 * force_error(plain[-1], old)


def test_a_replay_is_reproducible(pretrained: LearnedPotential) -> None:
    data = TrainingData(NOTHING, labelled(frames("H2O", 4, 7), NEW))
    replay = Replay(pack_frames(frames("CO", 5, 10)), 0.5, pretrained)
    tuning = trainer(4, 3e-3, "parent").replaying(replay)
    one, other = (tuning.train(data, pretrained, 3)[0].checkpoint() for _ in range(2))
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor, other.tensors[name])


def test_what_cannot_replay_says_so() -> None:
    batch = pack_frames(frames("CO", 2, 1))
    with pytest.raises(InputError, match="expected a pretrained network"):
        replaying_trainer(PairwiseTrainer(), batch, 0.5, None)
    data = TrainingData(NOTHING, labelled(frames("H2O", 4, 7), NEW))
    with pytest.raises(InputError, match="got a new network"):
        trainer(2, 1e-3, "scratch").replaying(Replay(batch, 0.5)).train(data, None, 0)


def test_a_universal_potential_replays_what_it_predicts_itself() -> None:
    if (missing := pretrained_kind("ani")) is None or missing.missing():
        pytest.skip("the weights of ANI-1x are not installed")
    stages = standard_stages(2, Schedule(1e-3, 4, warmup=1, compile=False))
    tuning = UniversalTrainer(StagedTrainer("ani", {"member": 1}, stages))
    batch = pack_frames(frames("CO", 3, 1))
    tuning = tuning.replaying(Replay(batch, 0.5))
    data = TrainingData(NOTHING, labelled(frames("H2O", 4, 7), NEW))
    found, _ = tuning.train(data, None, 0)
    original = tuning.original()
    replayed = replayed_labels(Replay(batch, 0.5), original)
    said = original.covering(batch).predict(batch)
    assert np.array_equal(replayed.labels.forces, said.forces)
    assert np.allclose(replayed.labels.energies, said.energies)
    assert set(found.references) == {1, 6, 8}  # C is replayed alone
    assert found.references[6] == 0.0
