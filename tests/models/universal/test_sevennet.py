"""SevenNet from a converted file, against what sevenn said of the same weights."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError, InputError
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import Label, LabelSet, TrainingData
from alloop.labels.direct import DirectLabeller
from alloop.labels.universal import universal_level
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.models.network import build_network
from alloop.models.universal.converted import read_converted
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.restore import restore_potential
from alloop.testing.potentials import (
    check_cutoff,
    check_forces,
    check_predictions,
    check_reflection,
    check_stored,
)
from alloop.training.replay import Replay
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential
from tests.models.universal.mace_reference import frames
from tests.models.universal.sevennet_reference import FOLDER, HEAD
from tests.models.universal.shared import LAWS, NOTHING, scaled_labels

FILE = FOLDER / "sevennet_small.alloop"
SETTINGS = {"path": str(FILE), "head": HEAD}


def potential(dtype: torch.dtype = torch.float64) -> LearnedPotential:
    network = build_network("sevennet", SETTINGS, dtype=dtype)
    return LearnedPotential(network, network.references)


def batch_of(start: int = 0, stop: int = 25) -> Any:
    return pack_frames([from_atoms(x) for x in frames()[start:stop]])


def test_everything_is_what_sevenn_says() -> None:
    theirs = np.load(FOLDER / "sevennet_small.npz")
    said = [potential().predict(x) for x in (batch_of(0, 20), batch_of(20, 25))]
    energies = np.concatenate([x.energies for x in said])
    forces = np.concatenate([x.forces for x in said])
    np.testing.assert_allclose(energies, theirs["energies"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(forces, theirs["forces"], rtol=0, atol=1e-10)
    assert said[1].stress is not None
    np.testing.assert_allclose(said[1].stress, theirs["stress"], rtol=0, atol=1e-9)
    assert np.abs(theirs["forces"]).max() > 0.01


def test_the_laws_hold() -> None:
    """But for reflections: its features have no parity, as those of sevenn."""
    own = potential()
    some = [from_atoms(frames()[n]) for n in (0, 3, 5)]
    check_predictions(own, some)
    check_stored(own, some)
    check_cutoff(own, some, cutoff=own.cutoff, tolerance=1e-6)
    for law in {check_forces, *LAWS} - {check_reflection}:
        law(own, some, tolerance=1e-6)


def test_heads_differ_and_one_is_kept() -> None:
    said = {}
    for head in ("rough", HEAD):
        network = build_network("sevennet", {**SETTINGS, "head": head})
        own = LearnedPotential(network, network.references)
        said[head] = own.predict(batch_of(0, 3)).forces
        assert network.settings["model"]["heads"] == [head]
    assert np.abs(said["rough"] - said[HEAD]).max() > 1e-3
    with pytest.raises(InputError, match=r"`head:` .*\(rough, fine\), got none"):
        build_network("sevennet", {"path": str(FILE)})


def test_a_file_of_another_network_is_refused() -> None:
    mace = str(FOLDER / "mace_density.alloop")
    with pytest.raises(InputError, match=r"of SevenNet, .* is one of MACE"):
        build_network("sevennet", {"path": mace, "head": "xtb"})
    with pytest.raises(InputError, match="write `kind: sevennet`"):
        build_network("mace", SETTINGS)


@pytest.mark.slow
def test_md_runs_compiled_and_in_batches() -> None:
    own = potential(torch.float32)
    batch = pack_frames([from_atoms(frames()[0])] * 4)
    compiled, why = compiled_for(own, batch)
    assert why is None
    said, plain = compiled.predict(batch), own.predict(batch)
    np.testing.assert_allclose(said.forces, plain.forces, rtol=0, atol=1e-4)


def sentence(file: Path) -> str | None:
    """What a user is told of a file, None where it can be used."""
    try:
        build_network("sevennet", {**SETTINGS, "path": str(file)})
    except AlloopError as error:
        return str(error)
    return None


def test_crafted_descriptions_are_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "own.alloop"
    checkpoint = checkpoint_from_bytes(FILE.read_bytes())
    model = read_converted(FILE).settings
    places = [("", key) for key in model] + [
        ("layers", key) for key in model["layers"][1]
    ]
    refused = 0
    for place, key in places:
        for value in (None, "x", -1, [[9, 9, 9]]):
            settings = deepcopy(checkpoint.settings)
            tree = settings["potential"]["network"]["model"]
            (tree["layers"][1] if place else tree)[key] = value
            file.write_bytes(
                checkpoint_to_bytes(
                    Checkpoint(checkpoint.kind, settings, checkpoint.tensors)
                )
            )
            said = sentence(file)
            refused += said is not None
            assert said is None or len(said.splitlines()) == 1
    assert refused > 55


# --- training ------------------------------------------------------------------------


def labels(count: int, seed: int) -> LabelSet:
    """Water and methane with the model's own labels, scaled by 1.2."""
    return scaled_labels(potential(), frames()[:2], count=count, seed=seed, shift=-3.0)


def trainer(steps: int, **settings: Any) -> UniversalTrainer:
    stages = standard_stages(steps, Schedule(3e-3, batch=4, warmup=2, ema=0.8))
    return UniversalTrainer(StagedTrainer("sevennet", {**SETTINGS, **settings}, stages))


def test_fine_tuning_beats_the_model_as_it_comes() -> None:
    taught, test = labels(12, 1), labels(12, 2)
    tuned, history = trainer(40).train(TrainingData(NOTHING, taught), None, 0)
    before = prediction_errors(
        untrained_potential("sevennet", SETTINGS, taught).predict(test.batch), test
    )
    after = prediction_errors(tuned.predict(test.batch), test)
    assert after.force_mae < 0.7 * before.force_mae
    assert history["before/name"][0] == "as it comes"
    again = restore_potential(
        checkpoint_from_bytes(checkpoint_to_bytes(tuned.checkpoint()))
    )
    said = again.predict(test.batch)
    np.testing.assert_array_equal(said.forces, tuned.predict(test.batch).forces)
    assert again.licence == "MIT"  # type: ignore[attr-defined]


def test_replay_keeps_other_molecules() -> None:
    taught, others = labels(12, 1), batch_of(2, 12)
    plain, _ = trainer(40).train(TrainingData(NOTHING, taught), None, 0)
    replayed, history = (
        trainer(40)
        .replaying(Replay(others, 0.6))
        .train(TrainingData(NOTHING, taught), None, 0)
    )
    before = potential().predict(others).forces
    changes = [
        np.abs(x.covering(others).predict(others).forces - before).mean()
        for x in (plain, replayed)
    ]
    assert changes[1] < 0.7 * changes[0]
    assert history["replayed/force_mae"] > 0.0


@pytest.mark.parametrize("freeze", ["embeddings", "body"])
def test_frozen_parts_stay(freeze: str) -> None:
    taught = labels(8, 1)
    tuned, _ = trainer(4, freeze=freeze).train(TrainingData(NOTHING, taught), None, 0)
    start, end = potential().network.state_dict(), tuned.network.state_dict()
    same = {
        name for name, x in start.items() if torch.equal(x.float(), end[name].float())
    }
    assert "embedding.weight" in same
    assert ("layers.0.before.weights.0" in same) == (freeze == "body")
    assert "readout.0.weights.0" not in same


def test_a_level_labels_as_the_network_says() -> None:
    theirs = np.load(FOLDER / "sevennet_small.npz")
    label = DirectLabeller(universal_level("sevennet", **SETTINGS)).label(
        from_atoms(frames()[0])
    )
    assert isinstance(label, Label)
    assert label.energy == pytest.approx(theirs["energies"][0], abs=1e-8)
