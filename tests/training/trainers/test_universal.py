"""Fine-tuning a universal potential."""

import numpy as np
import pytest
import torch
from ase import Atoms

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import Label, LabelSet, TrainingData
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from alloop.models.checkpoint import checkpoint_from_bytes, checkpoint_to_bytes
from alloop.models.network import build_network
from alloop.potentials.restore import restore_potential
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import (
    UniversalTrainer,
    require_covered,
    untrained_potential,
)

pytest.importorskip("chgnet")

WATER = np.array([[0.0, 0.0, 0.0], [0.0, 0.757, 0.587], [0.0, -0.757, 0.587]])
NOTHING = LabelSet(pack_frames(()), np.zeros(0), np.zeros((0, 3)))


def labels(count: int, seed: int) -> LabelSet:
    noise = np.random.default_rng(seed).normal(0.0, 0.05, (count, 3, 3))
    frames = [from_atoms(Atoms("OHH", WATER + x)) for x in noise]
    made = [DirectLabeller(toy_level(offset=-700.0)).label(x) for x in frames]
    good = [x for x in made if isinstance(x, Label)]
    return LabelSet(
        pack_frames(frames),
        np.array([x.energy for x in good]),
        np.concatenate([x.forces for x in good]),
    )


def trainer(steps: int) -> UniversalTrainer:
    (stage,) = standard_stages(steps, Schedule(3e-3, batch=4, warmup=2, ema=0.8))
    staged = StagedTrainer("chgnet", {"freeze": "embeddings"}, (stage,))
    return UniversalTrainer(staged)


def test_references_take_another_zero_of_energy_away() -> None:
    taught = labels(6, 1)
    potential = untrained_potential("chgnet", {}, taught)
    found = prediction_errors(potential.predict(taught.batch), taught)
    assert found.energy_mae < 1.0  # eV, where labels lie 2100 eV below the network
    assert abs(found.energy_mae - found.energy_spread) < 1e-6
    assert potential.scale == 1.0


def test_a_few_steps_from_its_own_weights_beat_the_universal_potential() -> None:
    taught, test = labels(8, 1), labels(8, 2)
    potential, history = trainer(25).train(TrainingData(NOTHING, taught), None, 0)
    before = prediction_errors(
        untrained_potential("chgnet", {}, taught).predict(test.batch), test
    )
    after = prediction_errors(potential.predict(test.batch), test)
    assert after.force_mae < 0.6 * before.force_mae
    assert potential.scale == 1.0
    assert history["stages"] == ["standard"]
    pretrained, tuned = (
        build_network("chgnet").state_dict(),
        potential.network.state_dict(),
    )
    moved = {n for n, x in tuned.items() if not torch.equal(x, pretrained[n])}
    assert moved
    assert not any("embedding" in name or "basis" in name for name in moved)
    again = restore_potential(
        checkpoint_from_bytes(checkpoint_to_bytes(potential.checkpoint()))
    )
    said, same = potential.predict(test.batch), again.predict(test.batch)
    assert np.array_equal(said.forces, same.forces)


def test_frames_that_it_cannot_tell_apart_are_refused() -> None:
    def water(charge: int, spin: int) -> Frame:
        return Frame(np.array([8, 1, 1]), WATER, charge, spin)

    require_covered("chgnet", {}, pack_frames([water(1, 1), water(1, 1)]))
    with pytest.raises(InputError, match=r"one charge and spin of H2O.*\(0, 0\)"):
        require_covered("chgnet", {}, pack_frames([water(0, 0), water(1, 1)]))
    heavy = Frame(np.array([95]), np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"chgnet knows \(H to Pu\), got Am"):
        require_covered("chgnet", {}, pack_frames([heavy]))
