"""The graph that networks read: its fields, types and how it is collated."""

import numpy as np
import torch
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.models.graph import edge_vectors, sum_frames, to_graph
from alloop.models.pyg import GraphBatch

WATER = from_atoms(molecule("H2O"))
RADICAL = from_atoms(molecule("OH"), charge=1, spin=2)


def test_fields_have_their_shapes_and_types() -> None:
    graph = to_graph(pack_frames([WATER, RADICAL]), 5.0, torch.float64)
    assert graph.z.tolist() == [8, 1, 1, 8, 1]
    assert graph.batch.tolist() == [0, 0, 0, 1, 1]
    assert graph.edge_index.shape == (2, 8)
    assert graph.shift.shape == (8, 3)
    assert graph.charge.tolist() == [0.0, 1.0]
    assert graph.spin.tolist() == [0.0, 2.0]
    assert graph.num_graphs == 2
    assert graph.pos.dtype == graph.shift.dtype == graph.charge.dtype == torch.float64
    np.testing.assert_array_equal(graph.pos[:3].numpy(), WATER.positions)


def test_the_topology_of_small_molecules_is_made_once() -> None:
    batch = pack_frames([WATER, RADICAL])
    one = to_graph(batch, 5.0)
    other = to_graph(batch.with_positions(batch.positions + 1.0), 5.0)
    assert one.edge_index is other.edge_index
    assert not torch.equal(one.pos, other.pos)


def test_the_graph_does_not_share_memory_with_the_frames() -> None:
    batch = pack_frames([WATER])
    graph = to_graph(batch, 5.0, torch.float64)
    graph.pos += 1.0
    graph.z += 1
    np.testing.assert_array_equal(batch.positions, WATER.positions)
    np.testing.assert_array_equal(batch.numbers, WATER.numbers)


def test_edges_run_from_the_receiver_to_the_images_of_the_sender() -> None:
    frame = from_atoms(bulk("Cu"))
    graph = to_graph(pack_frames([frame]), 3.0, torch.float64)
    lengths = edge_vectors(graph).norm(dim=1)
    assert len(lengths) == 12  # nearest neighbours in fcc
    nearest = to_atoms(frame).cell.lengths()[0]
    np.testing.assert_allclose(lengths.numpy(), nearest, rtol=1e-12)


def test_an_edge_vector_ends_at_its_sender() -> None:
    graph = to_graph(pack_frames([WATER]), 5.0, torch.float64)
    senders, receivers = graph.edge_index
    expected = graph.pos[senders] - graph.pos[receivers]
    torch.testing.assert_close(edge_vectors(graph), expected)


def test_sums_over_frames_count_empty_frames_too() -> None:
    empty = Frame(np.zeros(0), np.zeros((0, 3)))
    graph = to_graph(pack_frames([WATER, empty, RADICAL]), 5.0)
    assert sum_frames(torch.ones(5), graph).tolist() == [3.0, 0.0, 2.0]


def test_torch_geometric_collates_our_graphs() -> None:
    frames = [WATER, RADICAL]
    whole = to_graph(pack_frames(frames), 5.0)
    joined = GraphBatch.from_data_list(
        [to_graph(pack_frames([f]), 5.0) for f in frames]
    )
    assert torch.equal(joined.edge_index, whole.edge_index)
    assert torch.equal(joined.batch, whole.batch)
    assert torch.equal(joined.charge, whole.charge)
