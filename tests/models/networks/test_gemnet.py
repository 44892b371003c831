"""GemNet's rows of edges and its triplets against loops over atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.special import eval_legendre, spherical_jn

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.models.graph import Graph, edge_vectors, to_graph
from alloop.models.network import build_network
from alloop.models.networks.gemnet import (
    GemNet,
    SphericalBessel,
    bessel_roots,
    incoming_edges,
    legendre_polynomials,
)


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


def test_roots_are_the_first_of_each_function() -> None:
    roots = bessel_roots(7, 6)
    degrees = np.arange(7)[:, None]
    np.testing.assert_allclose(spherical_jn(degrees, roots), 0.0, atol=1e-12)
    for degree, own in enumerate(roots):
        z = np.linspace(1e-3, own[-1] + 1e-3, 5000)
        signs = np.sign(spherical_jn(degree, z))
        assert (signs[1:] != signs[:-1]).sum() == 6


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)]
)
def test_the_fit_is_the_spherical_bessel_function(
    dtype: torch.dtype, tolerance: float
) -> None:
    r = torch.linspace(0.01, 5.0, 997, dtype=torch.float64)
    found = SphericalBessel(7, 6, 5.0).to(dtype)(r.to(dtype)).numpy()
    roots = bessel_roots(7, 6)
    degrees = np.arange(7)[:, None]
    norm = np.sqrt(2.0 / 5.0**3) / np.abs(spherical_jn(degrees + 1, roots))
    wanted = norm * spherical_jn(degrees, r.numpy()[:, None, None] / 5.0 * roots)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_radial_functions_of_one_degree_are_orthonormal() -> None:
    r = (torch.arange(20000, dtype=torch.float64) + 0.5) * (5.0 / 20000)
    f = SphericalBessel(3, 4, 5.0)(r)
    gram = torch.einsum("r,rln,rlm->lnm", r**2, f, f) * (5.0 / 20000)
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(gram, eye, rtol=0, atol=1e-6)


def test_far_beyond_the_cutoff_functions_stay_bounded() -> None:
    assert SphericalBessel(7, 6, 5.0)(torch.linspace(5.0, 500.0, 999)).abs().max() < 10


def test_angular_functions_are_legendre_polynomials() -> None:
    x = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    for degree, found in enumerate(legendre_polynomials(x, 7)):
        P = torch.from_numpy(eval_legendre(degree, x.numpy()))
        wanted = np.sqrt((2 * degree + 1) / (4 * np.pi)) * P
        torch.testing.assert_close(found, wanted)


def test_angular_functions_have_slopes_at_a_straight_angle() -> None:
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(torch.stack(legendre_polynomials(x, 7)).sum(), x)
    degrees = torch.arange(7, dtype=torch.float64)
    norm = torch.sqrt((2 * degrees + 1) / (4 * torch.pi))
    ends = norm * degrees * (degrees + 1) / 2  # of P_l' at 1
    wanted = torch.stack([(ends * (-1.0) ** (degrees + 1)).sum(), ends.sum()])
    torch.testing.assert_close(slopes, wanted)
