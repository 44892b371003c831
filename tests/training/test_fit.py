"""The optimisation loop on a potential whose truth is known: an ideal spring."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.models.graph import to_graph
from alloop.models.network import Network, build_network, energy_and_forces
from alloop.training.fit import fit_network
from alloop.training.graph_pool import (
    BatchOrder,
    GraphPool,
    force_scale,
    make_graph_pool,
)
from alloop.training.stage_state import label_error
from alloop.training.stages import Schedule, Stage

SMALL = {"channels": 8, "layers": 1, "radial": 6, "cutoff": 4.0}
STAGE = Stage("spring", "expensive", 60, schedule=Schedule(batch=4, every=20))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spring_pool(expensive) -> Callable[..., GraphPool]:
    def make(count: int = 12, name: str = "train") -> GraphPool:
        labels = expensive(count, name)
        rest = LabelSet(labels.batch, labels.energies + 32.0, labels.forces)
        return make_graph_pool(rest, force_scale(labels), cutoff=4.0)

    return make


def network(seed: int = 0) -> Network:
    return build_network("painn", SMALL, seed=seed)


def bits(network: Network) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in network.parameters())


def test_the_error_falls_on_frames_that_were_not_seen(spring_pool) -> None:
    held_out = spring_pool(8, "test")
    start = network()
    stage = Stage("spring", "expensive", 150, schedule=Schedule(lr=1e-2, batch=4))
    trained, course = fit_network(start, spring_pool(), stage, 0)
    assert label_error(trained, held_out) < 0.3 * label_error(start, held_out)
    assert course.losses[-1] < 0.3 * course.losses[0]
    assert course.steps[-1] == 150


def test_the_network_that_comes_in_is_left_as_it_is(spring_pool) -> None:
    start = network()
    before = bits(start)
    fit_network(start, spring_pool(), replace(STAGE, steps=3), 0)
    assert bits(start) == before


def test_the_same_call_gives_the_same_bits_and_another_seed_does_not(
    spring_pool,
) -> None:
    results = [fit_network(network(), spring_pool(), STAGE, seed) for seed in (5, 5, 6)]
    first, again, other = (bits(trained) for trained, _ in results)
    assert first == again
    assert first != other
    assert results[0][1] == results[1][1]


def test_progress_is_told_and_changes_nothing(spring_pool) -> None:
    told: list[tuple[str, int, int]] = []
    loud, _ = fit_network(
        network(),
        spring_pool(),
        STAGE,
        5,
        progress=lambda *said: told.append(said[:3]),
    )
    quiet, _ = fit_network(network(), spring_pool(), STAGE, 5)
    assert told == [("spring", step, 60) for step in (20, 40, 60)]
    assert bits(loud) == bits(quiet)


def test_watching_held_out_frames_changes_nothing_without_patience(spring_pool) -> None:
    watched, course = fit_network(
        network(), spring_pool(), STAGE, 5, spring_pool(4, "test")
    )
    alone, _ = fit_network(network(), spring_pool(), STAGE, 5)
    assert bits(watched) == bits(alone)
    assert len(course.validation) == len(course.steps)


def test_patience_stops_early_and_keeps_the_best_weights(spring_pool) -> None:
    # A learning rate this high lets the error rise again at once.
    schedule = Schedule(lr=0.3, warmup=1, ema=0.0, batch=4, every=5, patience=20)
    stage = Stage("wild", "expensive", 400, schedule=schedule)
    held_out = spring_pool(8, "test")
    trained, course = fit_network(network(), spring_pool(), stage, 1, held_out)
    assert course.steps[-1] < 400
    assert label_error(trained, held_out) == min(course.validation)
    lowest = course.steps[course.validation.index(min(course.validation))]
    assert course.steps[-1] - lowest == 20


def test_labels_that_are_not_finite_are_refused(expensive) -> None:
    labels = expensive(4)
    labels.forces[0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="stage spring at step 0"):
        fit_network(network(), make_graph_pool(labels, 1.0, 4.0), STAGE, 0)


def test_an_epoch_shows_every_frame_once() -> None:
    order = BatchOrder(seed=1, name="x", frames=12, batch=4)
    epoch = np.concatenate([order.at(step) for step in range(3)])
    assert sorted(epoch) == list(range(12))
    assert list(order.at(3)) != list(order.at(0))


def test_a_step_has_the_same_frames_whenever_it_is_asked() -> None:
    forward = [BatchOrder(1, "x", 30, 10).at(step).tolist() for step in range(9)]
    order = BatchOrder(1, "x", 30, 10)
    backward = [order.at(step).tolist() for step in reversed(range(9))]
    assert forward == backward[::-1]


def test_few_frames_are_all_taken_at_each_step() -> None:
    assert BatchOrder(1, "x", 3, 10).at(7).tolist() == [0, 1, 2]


def test_taken_frames_are_what_a_graph_of_them_would_be() -> None:
    sizes = [2, 3, 1, 4]
    rng = random_stream(0, "mixed")
    frames = [Frame(np.full(n, 6), 2.0 * rng.normal(size=(n, 3))) for n in sizes]
    batch = pack_frames(frames)
    labels = LabelSet(batch, np.arange(4.0), rng.normal(size=(10, 3)))
    pool = make_graph_pool(labels, 2.0, cutoff=4.0)
    graph, target = pool.select(np.array([3, 0, 1]))
    expected = to_graph(pack_frames([frames[3], frames[0], frames[1]]), 4.0)
    for name in ("z", "pos", "edge_index", "shift", "batch", "charge", "spin"):
        torch.testing.assert_close(graph[name], expected[name])
    torch.testing.assert_close(target.energies, torch.tensor([1.5, 0.0, 0.5]))
    net = network()
    alone = energy_and_forces(net, expected)
    torch.testing.assert_close(energy_and_forces(net, graph).forces, alone.forces)
    np.testing.assert_allclose(target.forces[:4], labels.forces[6:] / 2.0, rtol=1e-6)


def test_labels_without_forces_have_scale_one(expensive) -> None:
    labels = expensive(2)
    still = LabelSet(labels.batch, labels.energies, np.zeros((4, 3)))
    assert force_scale(still) == 1.0
