"""Fine-tuning of few weights: low-rank adapters, and a head for replayed frames."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.core.seeds import random_stream
from alloop.models.checkpoint import Checkpoint
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.potentials.learned import LearnedPotential
from alloop.training.adapters import (
    adapted_names,
    with_adapters,
    without_adapters,
)
from alloop.training.optimisers import free_weights
from alloop.training.replay import Replay
from alloop.training.replay_head import (
    ReplayHead,
    campaign_network,
    replayed_network,
)
from alloop.training.stages import Adapters, Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from tests.models.universal.mace_reference import FOLDER, frames

MACE = {"path": str(FOLDER / "mace_density.alloop"), "head": "xtb"}
NOTHING = LabelSet.of([], [], [])
NARROW = Adapters(rank=1, alpha=2.0)


def network() -> Any:
    return build_network("mace", MACE, dtype=torch.float64)


def batch(*numbers: int) -> Any:
    return pack_frames([from_atoms(frames()[n]) for n in numbers])


def labels(seed: int = 0) -> LabelSet:
    """Labels that differ from the model's own by a random part."""
    some = batch(0, 2, 3, 5, 6, 7)
    own = network()
    said = LearnedPotential(own, own.references).predict(some)
    rng = random_stream(seed, "labels")
    noise = rng.normal(0.0, 0.3, said.forces.shape)
    return LabelSet(some, said.energies - 3.0, said.forces + noise)


def trainer(steps: int, **options: Any) -> UniversalTrainer:
    stages = standard_stages(steps, Schedule(3e-2, batch=4, warmup=2, ema=0.8))
    return UniversalTrainer(StagedTrainer("mace", MACE, stages, **options))


def moved(tuned: LearnedPotential) -> dict[str, torch.Tensor]:
    before = network().to(torch.float32).state_dict()
    after = tuned.network.state_dict()
    assert set(after) == set(before)
    changes = {name: after[name] - x for name, x in before.items()}
    return {name: x for name, x in changes.items() if x.abs().max() > 0.0}


def test_adapters_change_nothing_before_the_first_step() -> None:
    own = network()
    adapted = with_adapters(own, NARROW, 0)
    graph = to_graph(batch(0, 3), own.cutoff, torch.float64)
    plain, same = (energy_and_forces(x, graph) for x in (own, adapted))
    assert torch.equal(plain.forces, same.forces)
    names = adapted_names(own, 1)
    assert len(names) > 5
    free = free_weights(adapted)
    assert not set(free) & names
    assert sum(x.numel() for x in free.values()) < 0.6 * sum(
        x.numel() for x in own.parameters()
    )
    assert all(name in free for name in free_weights(own) if "readouts" in name)


def test_merged_matrices_are_the_sums_of_both_factors() -> None:
    adapted = with_adapters(network(), NARROW, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if name.endswith(".second"):
                weight += torch.randn(weight.shape, generator=generator).to(weight)
    merged = without_adapters(adapted)
    graph = to_graph(batch(0, 3), adapted.cutoff, torch.float64)
    one, two = (energy_and_forces(x, graph) for x in (adapted, merged))
    assert torch.allclose(one.forces, two.forces, rtol=0, atol=1e-12)
    before, after = network().state_dict(), merged.state_dict()
    assert set(before) == set(after)
    name = min(adapted_names(network(), 1))
    change = after[name] - before[name]
    assert torch.linalg.matrix_rank(change).max() == 1
    own = network()
    assert without_adapters(own) is own


def test_only_adapted_matrices_and_readouts_move() -> None:
    data = TrainingData(NOTHING, labels())
    tuned, history = trainer(6, adapters=NARROW).train(data, None, 0)
    changes = moved(tuned)
    names = adapted_names(network(), 1)
    assert set(changes) <= names | {x for x in changes if x.startswith("readouts.")}
    assert len(set(changes) & names) > 5
    for name in set(changes) & names:
        assert torch.linalg.matrix_rank(changes[name], rtol=1e-3).max() <= 1
    assert all(x.requires_grad for x in tuned.network.parameters())
    assert history["steps"] == [6]


def test_adapters_larger_than_all_matrices_are_refused() -> None:
    with pytest.raises(InputError, match=r"of mace, got rank 64; choose a lower rank"):
        with_adapters(network(), Adapters(rank=64), 0)


def replaying(steps: int, own_head: bool, share: float = 0.5) -> UniversalTrainer:
    made = trainer(steps, own_head=own_head)
    return made.replaying(Replay(batch(2, 5, 6), share))


def test_a_head_of_its_own_sees_replayed_frames_alone() -> None:
    own = network()
    both = ReplayHead(own)
    with torch.no_grad():
        for weight in both.copies:
            weight.mul_(1.5)
    graph = to_graph(batch(0, 2, 3), own.cutoff, torch.float64)
    graph.replayed = torch.tensor([False, True, False])
    together = energy_and_forces(both, graph)
    apart = [
        energy_and_forces(x, to_graph(batch(n), own.cutoff, torch.float64))
        for x, n in ((own, 0), (replayed_network(both), 2), (own, 3))
    ]
    energies = torch.cat([x.energies for x in apart])
    assert torch.allclose(together.energies, energies, rtol=0, atol=1e-10)
    forces = torch.cat([x.forces for x in apart])
    assert torch.allclose(together.forces, forces, rtol=0, atol=1e-10)
    assert campaign_network(both) is own
    del graph.replayed
    same = energy_and_forces(both, graph).energies[1]
    assert not torch.isclose(same, together.energies[1])


def test_the_replay_head_works_and_is_left_out_of_the_model() -> None:
    data = TrainingData(NOTHING, labels())
    results = {own: replaying(8, own).train(data, None, 0) for own in (False, True)}
    tuned, history = results[True]
    assert history["replayed/force_mae"] > 1e-4  # labels that the body has moved from
    assert history["after/name"][:2] == ["replayed frames", "by their own head"]
    assert history["after/force_mae"][1] == history["replayed/force_mae"]
    assert set(tuned.network.state_dict()) == set(network().state_dict())
    shared, _ = results[False]
    assert not np.array_equal(
        shared.predict(data.expensive.batch).forces,
        tuned.predict(data.expensive.batch).forces,
    )


class Stopped(Exception):
    """The end of a training that was cut short."""


class Keeper:
    """Keeps states in memory; stops at the second one where it is told to."""

    def __init__(self, stop: bool = False) -> None:
        self.states: dict[str, Checkpoint] = {}
        self.stop = stop

    def should_save(self) -> bool:
        return True

    def save(self, name: str, state: Checkpoint) -> None:
        self.states[name] = state
        if self.stop and state.settings["progressed"]["step"] == 2:
            raise Stopped

    def load(self, name: str) -> Checkpoint | None:
        return self.states.get(name)

    def report(self, progress: Any) -> None: ...


@pytest.mark.parametrize(
    ("own_head", "adapters"), [(True, None), (False, NARROW), (True, NARROW)]
)
def test_a_training_that_was_cut_short_ends_in_the_same_bits(
    own_head: bool, adapters: Adapters | None
) -> None:
    data = TrainingData(NOTHING, labels())
    made = replaying(4, own_head)
    made = UniversalTrainer(replace(made.staged, adapters=adapters))
    whole, _ = made.train(data, None, 0)
    keeper = Keeper(stop=True)
    with pytest.raises(Stopped):
        made.saving_to(keeper).train(data, None, 0)
    keeper.stop = False
    resumed, _ = made.saving_to(keeper).train(data, None, 0)
    one, two = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(one[name], x) for name, x in two.items())
    assert moved(whole)
