"""A campaign that fine-tunes a model of the user's and replays what it knows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from alloop import Campaign
from alloop.config import ConfigError, fixed_differences, load_campaign
from alloop.config.build import make_trainer
from alloop.config.starting_data import store_opening
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.jobs.train_job import prepare_training
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.training.replay_trainer import replaying_trainer
from alloop.training.stages import Adapters
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from alloop.workers import training_task
from tests.conftest import write_toy
from tests.models.universal.mace_reference import FOLDER

UNITS = {"energy_unit": "eV", "length_unit": "angstrom"}


def write_model(path: Path) -> None:
    network = build_network("schnet", {"channels": 4, "cutoff": 3.0}, seed=1)
    potential = LearnedPotential(network, {1: -1.0, 6: -3.0, 8: -2.0})
    none = Domain.of(*(LabelSet.of([], [], []).batch,) * 2)
    path.write_bytes(to_bytes(Generation(potential, None, None, {}, none))[1])


def write_old(path: Path, name: str = "CO", seed: int = 1) -> None:
    rng, found = np.random.default_rng(seed), []
    for _ in range(5):
        atoms = molecule(name)
        atoms.positions += rng.normal(0.0, 0.02, atoms.positions.shape)
        found.append(atoms)
    write(path, found, format="extxyz")


def campaign(folder: Path, **changes: Any) -> Path:
    replay = {"file": "old.xyz", "share": 0.4}
    training = {"kind": "standard", "steps": 2, "every": 4, "replay": replay}
    return write_toy(
        folder,
        potential={"kind": "file", "path": "own.model"},
        training={**training, "compile": False},
        flag={"kind": "q-residual", "heldout": 0.0},
        budget={"cheap": 0, "expensive": 8},
        seeds={"cheap": 0, "expensive": 4},
        explore={"walkers": 2, "batch": 2, "steps": 10, "piece": 10, "stride": 5},
        **changes,
    )


def test_the_worker_gets_frames_share_and_original_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "own.model")
    write_old(tmp_path / "old.xyz")
    seen: list[Any] = []

    def spy(trainer: StagedTrainer, frames: Any, share: float, original: Any) -> Any:
        seen.append((len(frames), share, sorted(original.references)))
        return replaying_trainer(trainer, frames, share, original)

    monkeypatch.setattr(training_task, "replaying_trainer", spy)
    path = campaign(tmp_path)
    ended = Campaign.from_yaml(path)
    assert ended.run().exit_code == 0
    assert len(ended.history().generations) > 1
    domain = ended.model(1).domain
    assert domain is not None
    assert {x.formula for x in domain.species} == {"CO", "H2O"}
    assert set(map(str, seen)) == {str((5, 0.4, [1, 6, 8]))}
    opened = store_opening(ended.store)
    assert isinstance(opened.replay, Batch)
    assert not fixed_differences(load_campaign(path), opened)
    write_old(tmp_path / "old.xyz", seed=2)
    (wrong,) = fixed_differences(load_campaign(path), opened)
    assert "replays" in wrong
    assert Campaign.from_store(ended.store).run().exit_code == 0


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "own.model")
    write_old(tmp_path / "old.xyz", "N2")
    assert "got frames with N; take them out" in refusal(campaign(tmp_path))
    write_old(tmp_path / "old.xyz")
    path = campaign(tmp_path)
    path.write_text(path.read_text().replace("kind: file", "kind: painn"))
    path.write_text(path.read_text().replace("  path: own.model\n", ""))
    assert "expected a pretrained network" in refusal(path)


def test_replayed_frames_cannot_test(tmp_path: Path) -> None:
    write_model(tmp_path / "own.model")
    atoms = molecule("CO")
    atoms.info["REF_energy"] = 1.0
    atoms.arrays["REF_forces"] = np.zeros((2, 3))
    write(tmp_path / "old.xyz", atoms, format="extxyz")
    sets = {"forgetting": {"labels": "old.xyz", **UNITS}}
    path = campaign(tmp_path, acceptance={"sets": sets})
    assert "frames that are replayed cannot test: 0" in refusal(path)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_campaign(path)
    return str(caught.value)


def test_frames_are_those_of_the_file(tmp_path: Path) -> None:
    write_model(tmp_path / "own.model")
    write_old(tmp_path / "old.xyz")
    setup = load_campaign(campaign(tmp_path))
    assert isinstance(setup.replay, Batch)
    assert all(isinstance(frame, Frame) for frame in setup.replay.frames())
    assert setup.worker_settings.replay == 0.4


def test_a_training_without_a_campaign_replays_too(tmp_path: Path) -> None:
    write_model(tmp_path / "own.model")
    write_old(tmp_path / "old.xyz")
    labels, rng = [], np.random.default_rng(3)
    for _ in range(6):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.02, (3, 3))
        atoms.info["REF_energy"] = rng.normal(-10.0, 0.1)
        atoms.arrays["REF_forces"] = rng.normal(0.0, 0.1, (3, 3))
        labels.append(atoms)
    write(tmp_path / "new.xyz", labels, format="extxyz")
    start = {"labels": str(tmp_path / "new.xyz"), "level": "expensive", **UNITS}
    training = {"kind": "standard", "steps": 2, "batch": 2, "compile": False}
    source = {
        "start": [start],
        "potential": {"kind": "file", "path": str(tmp_path / "own.model")},
        "training": training,
    }
    replay = {"file": str(tmp_path / "old.xyz"), "share": 0.5}
    replayed = {**source, "training": {**training, "replay": replay}}
    plain = prepare_training(source, tmp_path / "a.model")
    job = prepare_training(replayed, tmp_path / "b.model")
    before = job.request
    trained = job.run(lambda *_: None).generation
    assert trained.domain is not None
    assert [x.formula for x in trained.domain.species] == ["CO", "H2O"]
    found = trained.potential
    assert isinstance(found, LearnedPotential)
    assert found.references[6] == -3.0  # that of the model: carbon is replayed alone
    assert job.request != plain.request
    write_old(tmp_path / "old.xyz", seed=2)
    assert prepare_training(replayed, tmp_path / "b.model").request != before


def test_all_mistakes_of_fine_tuning_are_told_at_once(tmp_path: Path) -> None:
    write_model(tmp_path / "own.model")
    write_old(tmp_path / "old.xyz")
    path = campaign(tmp_path)
    text = path.read_text().replace("share: 0.4", "share: 0.4\n    head: own")
    path.write_text(text.replace("training:\n", "training:\n  adapters: {rank: 2}\n"))
    said = refusal(path)
    assert "training.replay.head: expected `shared`, since schnet" in said
    assert "training.adapters: expected a universal potential" in said
    path.write_text(path.read_text().replace("rank: 2", "rank: 0, alpha: -1"))
    said = refusal(path)
    assert "training.adapters.rank" in said
    assert "training.adapters.alpha" in said


def test_heads_and_adapters_reach_the_trainer(tmp_path: Path) -> None:
    write_old(tmp_path / "old.xyz")
    weights = FOLDER / "mace_density.alloop"
    chosen = {"kind": "mace", "path": str(weights), "head": "xtb"}
    replay = {"file": str(tmp_path / "old.xyz"), "head": "own"}
    training = {"kind": "standard", "adapters": {"rank": 2}, "replay": replay}
    plan = parse_plan(tmp_path, potential=chosen, training=training)
    trainer = make_trainer(plan)
    assert isinstance(trainer, UniversalTrainer)
    assert trainer.staged.adapters == Adapters(2, 4.0)
    assert trainer.staged.own_head
    frozen = {**chosen, "freeze": "body"}
    with pytest.raises(ConfigError, match=r"potential\.freeze: with `training: adapt"):
        parse_plan(tmp_path, potential=frozen, training=training)


def parse_plan(folder: Path, **sections: Any) -> Any:
    return load_campaign(write_toy(folder, **sections, flag={"kind": "leverage"})).plan


@pytest.mark.parametrize(
    ("recipe", "ema", "lr", "head"),
    [
        ("multihead", 0.99999, 1e-4, True),
        ("adapters", 0.99, 1e-3, False),
        ("replay", 0.99, 3e-4, False),
    ],
)
def test_recipes_of_fine_tuning_reach_the_trainer(
    recipe: str, ema: float, lr: float, head: bool, tmp_path: Path
) -> None:
    write_old(tmp_path / "old.xyz")
    weights = FOLDER / "mace_density.alloop"
    chosen = {"kind": "mace", "path": str(weights), "head": "xtb"}
    replay = {"replay": {"file": str(tmp_path / "old.xyz")}}
    training = {"kind": "standard", **({} if recipe == "adapters" else replay)}
    file = Path(__file__).parents[1] / "configs/tuning" / f"{recipe}.yaml"
    plan = parse_plan(tmp_path, extends=str(file), potential=chosen, training=training)
    trainer = make_trainer(plan)
    assert isinstance(trainer, UniversalTrainer)
    (stage,) = trainer.staged.stages
    assert (stage.schedule.ema, stage.schedule.lr) == (ema, lr)
    assert trainer.staged.own_head == head
    assert (trainer.staged.adapters is not None) == (recipe == "adapters")
