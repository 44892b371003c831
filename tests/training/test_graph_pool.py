"""Pools: batches by indexing, whatever the molecules."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.models.network import build_network, energy_and_forces
from alloop.training.graph_pool import GraphPool
from alloop.training.losses import (
    LabelLoss,
    Targets,
    eager_gradients,
    energy_loss,
    force_loss,
)
from alloop.training.stage_state import label_error
from tests.training.springs import network, pool
from tests.training.test_compiled_gradients import mixed_pool


def test_frames_of_one_molecule_are_taken_the_short_way() -> None:
    short = pool().with_weights(np.linspace(0.5, 1.5, 12))
    virial = torch.arange(72.0).view(12, 6)
    some = (torch.arange(24.0) % 5 > 1).float()
    short = replace(short, target=replace(short.target, virial=virial, labelled=some))
    long = replace(short, alike=False)
    assert short.alike
    for chosen in ([7, 0, 3], [5], list(range(12)), [2, 2]):
        (graph, target), (other, wanted) = (
            some.select(np.array(chosen)) for some in (short, long)
        )
        assert graph.num_graphs == other.num_graphs
        for name in ("z", "pos", "edge_index", "shift", "batch", "charge", "spin"):
            assert torch.equal(graph[name], other[name])
        for name in Targets.__slots__:
            if name == "counts":
                assert target.counts is wanted.counts is None  # both are whole
            else:
                assert torch.equal(getattr(target, name), getattr(wanted, name))


def test_different_molecules_are_not_alike() -> None:
    assert not mixed_pool().alike
    same_sizes = mixed_pool((3, 3, 3))  # of other elements
    assert not same_sizes.alike


def test_chunks_are_all_frames_in_order_and_not_too_large() -> None:
    frames = mixed_pool()
    chunks = list(frames.edge_chunks(25))
    assert np.concatenate(chunks).tolist() == list(range(len(frames)))
    edges = np.diff(frames.edges)
    assert len(chunks) > 2
    assert all(edges[chunk[:-1]].sum() <= 25 for chunk in chunks)


def test_the_error_does_not_depend_on_chunks(monkeypatch) -> None:
    frames, net = mixed_pool(), network()
    whole = label_error(net, frames)
    error = energy_and_forces(net, frames.graph).forces - frames.target.forces
    assert whole == pytest.approx(float(error.abs().mean()), rel=1e-5)
    monkeypatch.setattr("alloop.training.stage_state._EDGES", 7)
    assert label_error(net, frames) == pytest.approx(whole, rel=1e-5)


def parts(frames: GraphPool, chosen: list[int]) -> tuple[float, float]:
    """Summed, weighed errors of forces over atoms and of energies over frames."""
    graph, target = frames.select(np.array(chosen))
    said = energy_and_forces(network(), graph)
    atoms = len(target.forces)
    force = float(force_loss(said.forces, target)) * atoms
    return force, float(energy_loss(said.energies, target)) * len(chosen)


def test_molecules_of_all_sizes_count_by_their_atoms_and_frames() -> None:
    frames = mixed_pool()
    chosen = [5, 0, 2, 7]
    together = parts(frames, chosen)
    apart = np.sum([parts(frames, [frame]) for frame in chosen], axis=0)
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_the_slope_of_a_mixed_batch_is_the_sum_of_its_frames() -> None:
    frames, net, chosen = (
        mixed_pool(),
        build_network("painn", {"channels": 8}),
        [5, 0, 2],
    )
    slopes = eager_gradients(net, LabelLoss(0.0))
    sizes = [len(frames.select(np.array([frame]))[0].z) for frame in chosen]
    together = slopes(*frames.select(np.array(chosen)), ())
    apart = [slopes(*frames.select(np.array([frame])), ()) for frame in chosen]
    for row, gradient in enumerate(together.gradients):
        parts = [n * one.gradients[row] for n, one in zip(sizes, apart, strict=True)]
        expected = torch.stack(parts).sum(dim=0) / sum(sizes)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
