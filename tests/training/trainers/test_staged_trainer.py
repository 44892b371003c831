"""Stage lists from labels to a potential: ASTEROID, standard, and what is missing."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Trainer
from alloop.core.seeds import random_stream, torch_seed
from alloop.core.units import BOLTZMANN
from alloop.models.checkpoint import content_id
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.training.bias_weights import Gamma
from alloop.training.stages import (
    STEPS,
    Schedule,
    Stage,
    asteroid_stages,
    standard_stages,
)
from alloop.training.state_folder import StateFolder
from alloop.training.trainers import staged_trainer
from alloop.training.trainers.staged_trainer import (
    StagedTrainer,
    asteroid_trainer,
    held_out_split,
    runnable_stages,
    standard_trainer,
)

SMALL = {"channels": 8, "layers": 1, "radial": 6, "cutoff": 4.0}
QUICK = Schedule(lr=1e-2, batch=4, warmup=5, every=10)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quick(steps: tuple[int, int, int] = (20, 20, 20), **options) -> StagedTrainer:
    return StagedTrainer("painn", SMALL, asteroid_stages(steps, QUICK), **options)


def name_of(potential: LearnedPotential) -> str:
    return content_id(potential.checkpoint())


def test_stage_lists_are_trainers() -> None:
    assert isinstance(asteroid_trainer("painn", SMALL), Trainer)
    assert isinstance(standard_trainer("painn", SMALL), Trainer)


def test_standard_training_takes_as_many_steps_as_asteroid() -> None:
    assert standard_stages()[0].steps == sum(STEPS)
    assert sum(stage.steps for stage in asteroid_stages()) == sum(STEPS)


def test_asteroid_learns_the_expensive_level(cheap, expensive) -> None:
    data = TrainingData(cheap(40), expensive(6))
    test = expensive(20, "test")
    potential, _ = quick((30, 120, 60)).train(data, None, seed=1)
    said = potential.predict(test.batch)
    assert np.abs(said.forces - test.forces).mean() < 0.2 * np.abs(test.forces).mean()
    # The levels lie 2 eV apart; only the expensive one's base may show.
    assert np.abs(said.energies - test.energies).max() < 0.1


def test_the_history_tells_the_teachers_bias_on_each_cheap_frame(
    cheap, expensive
) -> None:
    data = TrainingData(cheap(15), expensive(8))
    _, told = quick((30, 1, 1)).train(data, None, seed=1)
    alone = StagedTrainer("painn", SMALL, asteroid_stages((30, 0, 0), QUICK)[:1])
    teacher, _ = alone.train(TrainingData(cheap(0), expensive(8)), None, seed=1)
    difference = teacher.predict(data.cheap.batch).forces - data.cheap.forces
    bias = [np.abs(pair).mean() for pair in np.split(difference, 15)]
    np.testing.assert_allclose(told["bias"], bias, rtol=1e-6)
    assert 0.3 <= told["effective"] <= 1.0
    assert told["gamma"] == pytest.approx(2.0 * np.std(told["bias"]))


def test_the_history_is_flat_json_with_a_value_for_each_stage(cheap, expensive) -> None:
    data = TrainingData(cheap(12), expensive(5))
    _, told = quick().train(data, None, seed=1)
    assert json.loads(json.dumps(told)) == told
    assert told["stages"] == ["teacher", "pretraining", "fine-tuning"]
    assert told["steps"] == [20, 20, 20]
    assert told["curve/pretraining/step"] == [10, 20]
    for key in ("loss", "cpu_seconds", "validation"):
        assert len(told[key]) == 3


def test_the_same_labels_and_seed_give_the_same_model(cheap, expensive) -> None:
    data = TrainingData(cheap(12), expensive(5))
    names = [name_of(quick().train(data, None, seed)[0]) for seed in (1, 1, 2)]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_training_stays_on_its_device(cheap, expensive, monkeypatch) -> None:
    """torch's CPU has two names, which are two devices to alloop."""
    data = TrainingData(cheap(12), expensive(5))
    here, _ = quick().train(data, None, seed=1)
    monkeypatch.setattr(staged_trainer, "torch_device", lambda _name: "cpu:0")
    there, _ = quick(device="auto").train(data, here, seed=1)
    assert here.device == "cpu"
    assert name_of(there) == name_of(here)


def test_without_cheap_labels_asteroid_is_standard_training(expensive, none) -> None:
    data = TrainingData(none, expensive(5))
    potential, told = quick().train(data, None, seed=1)
    assert told["stages"] == ["teacher"]
    assert told["steps"] == [60]
    assert "bias" not in told
    alone = (replace(asteroid_stages((60, 0, 0), QUICK)[0]),)
    same, _ = StagedTrainer("painn", SMALL, alone).train(data, None, seed=1)
    assert name_of(same) == name_of(potential)


def test_without_expensive_labels_the_cheap_level_is_learned(cheap, none) -> None:
    data = TrainingData(cheap(12), none)
    potential, told = quick().train(data, None, seed=1)
    assert told["stages"] == ["pretraining"]
    assert potential.references[1] == pytest.approx(-15.0, abs=0.05)


def test_without_any_labels_there_is_one_sentence(none) -> None:
    with pytest.raises(InputError, match="got none; label some frames first"):
        quick().train(TrainingData(none, none), None, seed=1)


def test_stages_without_steps_fall_out(cheap, expensive) -> None:
    stages = asteroid_stages((0, 10, 10))
    kept = runnable_stages(stages, TrainingData(cheap(3), expensive(3)))
    assert [stage.name for stage in kept] == ["pretraining", "fine-tuning"]


def test_one_of_several_gammas_is_chosen_by_held_out_frames(cheap, expensive) -> None:
    data = TrainingData(cheap(16), expensive(12))
    gammas = (Gamma(0.5), Gamma(4.0))
    both = quick(gammas=gammas, validation=0.3)
    _, told = both.train(data, None, seed=1)
    alone = [
        quick(gammas=(gamma,), validation=0.3).train(data, None, seed=1)[1]
        for gamma in gammas
    ]
    errors = [history["validation"][-1] for history in alone]
    assert told["validation"][-1] == min(errors)
    assert told["gamma"] == alone[errors.index(min(errors))]["gamma"]


def test_several_gammas_need_held_out_frames() -> None:
    with pytest.raises(InputError, match="choose among 2 gammas"):
        quick(gammas=(Gamma(1.0), Gamma(2.0)))


def test_a_frame_stays_held_out_when_others_come(expensive) -> None:
    few, many = expensive(20), expensive(40)
    held = [held_out_split(labels, 0.3)[1] for labels in (few, many)]
    ids = [{f.id for f in part.batch.frames()} for part in held if part is not None]
    known = {frame.id for frame in few.batch.frames()}
    assert ids[0] == ids[1] & known
    assert 0 < len(ids[0]) < 20


def test_held_out_labels_keep_their_own_forces(expensive) -> None:
    labels = expensive(20)
    training, held_out = held_out_split(labels, 0.3)
    assert held_out is not None
    assert len(training) + len(held_out) == 20
    for part in (training, held_out):
        r = 2.0 * np.abs(part.batch.positions[::2, 0])
        np.testing.assert_allclose(part.forces[::2, 0], 4.0 * (r - 0.8), atol=1e-6)


def test_a_parent_is_where_a_stage_starts(expensive, none) -> None:
    data = TrainingData(none, expensive(8))
    parent, _ = quick((60, 1, 1)).train(data, None, seed=1)
    still = Schedule(lr=1e-12, batch=4, ema=0.0)
    warm = Stage("warm", "expensive", 1, "parent", schedule=still)
    heir, told = StagedTrainer("painn", SMALL, (warm,)).train(data, parent, seed=2)
    assert told["scale"] == parent.scale
    state, former = heir.network.state_dict(), parent.network.state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, former[name], atol=1e-6, rtol=0.0)


def test_without_a_parent_such_a_stage_starts_from_scratch(expensive, none) -> None:
    data = TrainingData(none, expensive(8))
    still = Schedule(lr=1e-12, batch=4, ema=0.0)
    warm = Stage("warm", "expensive", 1, "parent", schedule=still)
    new, _ = StagedTrainer("painn", SMALL, (warm,)).train(data, None, seed=2)
    fresh = build_network("painn", SMALL, seed=torch_seed(2, "warm/network"))
    for ours, theirs in zip(new.network.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0.0)


def test_given_references_are_the_potentials_own(cheap, expensive) -> None:
    data = TrainingData(cheap(5), expensive(5))
    given = {"expensive": {1: -15.5}, "cheap": {1: -14.0}}
    potential, _ = quick((2, 2, 2), given=given).train(data, None, seed=1)
    assert potential.references == {1: -15.5}


def test_stages_are_told_of_in_order(cheap, expensive) -> None:
    told: list[str] = []
    trainer = quick(progress=lambda stage, *_: told.append(stage))
    trainer.train(TrainingData(cheap(5), expensive(5)), None, seed=1)
    order = [name for name, _ in pairwise([*told, ""])]
    assert order == ["teacher"] * 2 + ["pretraining"] * 2 + ["fine-tuning"] * 2


def test_frames_that_are_all_alike_are_weighed_alike(expensive) -> None:
    one = expensive(1)
    rows = np.zeros(6, dtype=np.int64)
    same = LabelSet(
        one.batch.select(rows), one.energies[rows], np.tile(one.forces, (6, 1))
    )
    _, told = quick((5, 5, 5)).train(TrainingData(same, expensive(4)), None, seed=1)
    assert told["effective"] == pytest.approx(1.0, abs=1e-6)


def test_a_stage_on_both_levels_takes_the_one_that_is_there(expensive, none) -> None:
    stages = (Stage("both", "both", 4, labels="corrected"), Stage("x", "cheap", 3))
    (alone,) = runnable_stages(stages, TrainingData(none, expensive(3)))
    assert (alone.on, alone.steps, alone.labels) == ("expensive", 7, "plain")
    assert runnable_stages(stages, TrainingData(expensive(3), expensive(3))) == stages


def test_a_difference_corrects_and_is_not_the_result(cheap, expensive) -> None:
    data = TrainingData(cheap(30), expensive(6))
    stages = (
        Stage("cheap", "cheap", 60, "scratch", schedule=QUICK),
        Stage("difference", "expensive", 40, "scratch", "uniform", QUICK, "difference"),
        Stage("both", "both", 60, schedule=QUICK, labels="corrected"),
    )
    potential, told = StagedTrainer("painn", SMALL, stages).train(data, None, seed=1)
    assert told["stages"] == ["cheap", "difference", "both"]
    test = expensive(20, "test")
    said = potential.predict(test.batch)
    assert np.abs(said.forces - test.forces).mean() < 0.2 * np.abs(test.forces).mean()
    assert np.abs(said.energies - test.energies).max() < 0.1


def test_frames_alone_teach_the_shape_of_a_well(cheap, expensive) -> None:
    """Bonds drawn from exp(-k/2 (r - r0)²/kT) of the cheap spring, labels unread."""
    kT = 500.0 * BOLTZMANN
    frames = cheap(200)
    r = 0.83 + np.sqrt(kT / 3.0) * random_stream(0, "thermal").standard_normal(200)
    positions = np.zeros((200, 2, 3))
    positions[:, :, 0] = np.stack([-r / 2, r / 2], axis=1)
    blind = LabelSet(
        frames.batch.with_positions(positions.reshape(-1, 3)),
        np.zeros(200),
        np.zeros((400, 3)),
    )
    schedule = Schedule(lr=5e-3, batch=20, warmup=5)
    stage = Stage(
        "frames", "cheap", 250, schedule=schedule, loss="score", temperature=500.0
    )
    trainer = StagedTrainer("painn", SMALL, (stage,))
    potential, _ = trainer.train(TrainingData(blind, expensive(1)), None, seed=1)
    ends = blind.batch.select([0, 1])
    there = np.zeros((2, 2, 3))
    there[:, 1, 0] = (0.78, 0.98)
    said = potential.predict(ends.with_positions(there.reshape(-1, 3))).forces
    slope = (said[1, 0] - said[3, 0]) / 0.2  # eV/Å², of the bond
    assert 1.5 < slope < 6.0


def test_a_killed_training_goes_on_where_it_was(cheap, expensive, tmp_path) -> None:
    data = TrainingData(cheap(12), expensive(5))
    whole, _ = quick().train(data, None, seed=1)

    class Killed(Exception):
        pass

    def kill(stage: str, step: int, *_: object) -> None:
        if (stage, step) == ("fine-tuning", 10):
            raise Killed

    keeper = StateFolder(tmp_path, every=0.0)
    with pytest.raises(Killed):
        quick(progress=kill, keeper=keeper).train(data, None, seed=1)
    told: list[str] = []
    again = quick(keeper=keeper, progress=lambda stage, *_: told.append(stage))
    resumed, _ = again.train(data, None, seed=1)
    assert name_of(resumed) == name_of(whole)
    assert set(told) == {"fine-tuning"}


def test_a_shortened_training_has_a_share_of_the_steps_of_each_stage() -> None:
    short = asteroid_trainer("painn", SMALL).scaled_steps(0.001)
    assert [stage.steps for stage in short.stages] == [1, 3, 1]
    assert [stage.name for stage in short.stages] == [x.name for x in asteroid_stages()]
