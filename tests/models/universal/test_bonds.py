"""Bonds and angles of a graph, against lists made by hand."""

from itertools import permutations

import numpy as np
import torch
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.models.graph import bond_angles, edge_vectors, to_graph
from alloop.models.universal.chgnet import bond_graph


def test_a_bond_is_an_edge_and_its_reverse() -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.6)  # two atoms: bonds to their own images
    for atoms in (molecule("CH3OH"), crystal):
        graph = to_graph(pack_frames([from_atoms(atoms)] * 2), 6.0, torch.float64)
        found = bond_graph(graph.edge_index, graph.shift)
        edges = graph.edge_index.shape[1]
        assert torch.bincount(found.of).tolist() == [2] * (edges // 2)
        assert found.of[found.edge].tolist() == list(range(edges // 2))
        vectors = edge_vectors(graph)
        first, second = torch.argsort(found.of, stable=True).reshape(-1, 2).T
        torch.testing.assert_close(vectors[first], -vectors[second])
        turned = graph.edge_index[:, second].flip(0)
        assert torch.equal(graph.edge_index[:, first], turned)


def test_angles_are_all_ordered_pairs_of_edges_with_one_centre() -> None:
    centres = torch.tensor([2, 0, 2, 1, 0, 2])
    expected = [
        (a, b) for a, b in permutations(range(6), 2) if centres[a] == centres[b]
    ]
    one, other = bond_angles(centres)
    assert sorted(zip(one.tolist(), other.tolist(), strict=True)) == expected
    none = bond_angles(torch.tensor([0, 1, 2]))
    assert [len(x) for x in none] == [0, 0]


def test_nothing_has_no_bonds() -> None:
    graph = to_graph(pack_frames([from_atoms(molecule("H"))]), 6.0)
    found = bond_graph(graph.edge_index, graph.shift)
    assert [len(x) for x in found] == [0, 0]
    assert [len(x) for x in bond_angles(graph.edge_index[1])] == [0, 0]
    assert np.isfinite(graph.pos.numpy()).all()
