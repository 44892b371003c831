"""GemNet's rows of edges and its triplets against loops over atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.models.graph import Graph, edge_vectors, to_graph
from alloop.models.network import build_network
from alloop.models.networks.gemnet import GemNet
from alloop.models.networks.gemnet_layers import incoming_edges, legendre_polynomials


def graph(*atoms: Atoms, cutoff: float = 5.0) -> Graph:
    shaken = [each.copy() for each in atoms]
    for each in shaken:
        each.rattle(0.05, seed=4)
    return to_graph(pack_frames([from_atoms(x) for x in shaken]), cutoff, torch.float64)


WATER, METHANOL = molecule("H2O"), molecule("CH3OH")
CELL = bulk("NaCl", "rocksalt", a=5.6)
GRAPHS = {
    "one molecule": graph(WATER),
    "molecules of one size": graph(WATER, WATER),
    "molecules of two sizes": graph(WATER, METHANOL, Atoms("O")),
    "a cell with images of its own atoms": graph(CELL),
    "no edges": graph(Atoms("O")),
    "a cell beside a molecule": graph(METHANOL, CELL),
}
every_graph = pytest.mark.parametrize("own", list(GRAPHS.values()), ids=list(GRAPHS))


@every_graph
def test_the_way_back_is_the_same_vector_reversed(own: Graph) -> None:
    back, vectors = incoming_edges(own).back, edge_vectors(own)
    assert torch.equal(own.edge_index.flip(0), own.edge_index[:, back])
    torch.testing.assert_close(vectors[back], -vectors)
    assert torch.equal(back[back], torch.arange(len(back)))


@every_graph
def test_rows_hold_the_edges_of_an_atom_and_give_them_back(own: Graph) -> None:
    rows = incoming_edges(own)
    receivers = own.edge_index[1]
    marks = torch.arange(1.0, len(receivers) + 1).unsqueeze(1)
    spread = rows.to_rows(marks)
    assert torch.equal(rows.from_rows(spread), marks)
    for atom, row in enumerate(spread.squeeze(2)):
        own_marks = marks[receivers == atom].squeeze(1)
        assert sorted(row[row > 0].tolist()) == own_marks.tolist()


@every_graph
def test_triplets_are_all_pairs_of_edges_at_an_atom(own: Graph) -> None:
    network = build_network("gemnet", {"channels": 4, "spherical": 3}, 0, torch.float64)
    assert isinstance(network, GemNet)
    _, edges = network.geometry(own)
    rows, receivers = edges.arrivals, edges.receivers.tolist()
    m = torch.randn(len(receivers), 2, dtype=torch.float64)
    found = rows.from_rows(
        torch.reshape(edges.angles @ rows.to_rows(m), (rows.atoms, rows.width, 3, 2))
    )
    units = torch.nn.functional.normalize(edge_vectors(own), dim=1)
    wanted = torch.zeros_like(found)
    for one, atom in enumerate(receivers):
        for other in np.flatnonzero(np.equal(receivers, atom)):
            if other != one:
                angle = legendre_polynomials(units[one] @ units[other], 3)
                wanted[one] += torch.stack(angle).unsqueeze(1) * m[other]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["H2O", "CH4", "CH3CH2OH", "C6H6"])
def test_features_begin_with_a_variance_near_one(name: str) -> None:
    """What the two constant scales are for; also with the paper's sizes."""
    paper = {"channels": 128, "narrow": 64, "layers": 4}
    for settings in ({}, paper):
        network = build_network("gemnet", settings)
        found = network(
            to_graph(pack_frames([from_atoms(molecule(name))]), 5.0)
        ).descriptors
        assert 0.2 < found.std() < 5.0
