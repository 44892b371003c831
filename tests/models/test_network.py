"""Building networks, and what holds for every network beyond the potential's laws."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack
from alloop.core.errors import InputError
from alloop.models.graph import to_graph
from alloop.models.network import NETWORKS, Network, build, energy_and_forces

SMALL = {"channels": 8, "layers": 2}
WATER = from_atoms(molecule("H2O"))
every_network = pytest.mark.parametrize("kind", sorted(NETWORKS))


def small(kind: str, seed: int = 0) -> Network:
    return build(kind, SMALL, seed, torch.float64)


@every_network
def test_a_seed_gives_the_same_weights_and_leaves_torch_alone(kind: str) -> None:
    before = torch.random.get_rng_state()
    one = build(kind, SMALL, 3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    two, other = build(kind, SMALL, 3), build(kind, SMALL, 4)
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@every_network
def test_settings_rebuild_the_network_with_all_defaults_spelled_out(kind: str) -> None:
    network = build(kind)
    again = build(network.kind, network.settings)
    assert again.settings == network.settings
    assert set(network.settings) == {"channels", "layers", "radial", "cutoff"}
    assert network.cutoff == network.settings["cutoff"] == 5.0


def test_the_defaults_are_those_that_did_best() -> None:
    assert build("painn").settings == {
        "channels": 64,
        "layers": 3,
        "radial": 8,
        "cutoff": 5.0,
    }
    assert build("egnn").settings["channels"] == 128
    assert build("egnn").settings["layers"] == 5


def test_an_unknown_kind_or_setting_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="painn or egnn, got 'gemnet'"):
        build("gemnet")
    with pytest.raises(InputError, match="painn has no setting depth; it has channels"):
        build("painn", {"depth": 3})


@every_network
def test_forces_can_be_differentiated_again(kind: str) -> None:
    """∂(F·v)/∂R = -Hv, against differences of forces."""
    graph = to_graph(pack([WATER]), 5.0, torch.float64)
    network = small(kind)
    v = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator())
    pos = graph.pos.clone().requires_grad_()

    def forces(at: torch.Tensor, create_graph: bool) -> torch.Tensor:
        energies, _ = network(graph.clone().update({"pos": at}))
        (gradient,) = torch.autograd.grad(energies.sum(), at, create_graph=create_graph)
        return -gradient

    (product,) = torch.autograd.grad((forces(pos, True) * v).sum(), pos)
    h = 1e-4
    plus = forces((pos.detach() + h * v).requires_grad_(), False)
    minus = forces((pos.detach() - h * v).requires_grad_(), False)
    torch.testing.assert_close(product, (plus - minus) / (2 * h), atol=1e-6, rtol=1e-5)


@every_network
def test_a_force_loss_reaches_every_weight_but_the_energy_shift(kind: str) -> None:
    frames = [WATER, from_atoms(molecule("CH3OH")), from_atoms(molecule("OH"), 1, 2)]
    graph = to_graph(pack(frames), 5.0, torch.float64)
    network = small(kind)
    said = energy_and_forces(network, graph, create_graph=True)
    (said.forces.square().sum() + said.energies.square().sum()).backward()
    lost = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert lost == []
    assert not said.descriptors.requires_grad
    assert graph.pos.grad is None
    assert not graph.pos.requires_grad


@every_network
def test_a_doubled_cell_has_twice_the_energy_and_the_same_forces(kind: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=2)
    one, two = from_atoms(atoms), from_atoms(atoms * (2, 1, 1))
    network = small(kind)
    single = energy_and_forces(network, to_graph(pack([one]), 5.0, torch.float64))
    double = energy_and_forces(network, to_graph(pack([two]), 5.0, torch.float64))
    torch.testing.assert_close(double.energies, 2 * single.energies)
    torch.testing.assert_close(double.forces, single.forces.repeat(2, 1))


@every_network
def test_charge_and_spin_change_the_energy(kind: str) -> None:
    states = [(0, 0), (1, 0), (0, 2)]
    frames = [from_atoms(molecule("OH"), *state) for state in states]
    graph = to_graph(pack(frames), 5.0, torch.float64)
    energies = small(kind)(graph).energies.detach().numpy()
    assert len(np.unique(np.round(energies, 6))) == 3


@every_network
def test_a_linear_molecule_has_finite_forces_along_its_axis(kind: str) -> None:
    """Vector features vanish at its centre by symmetry."""
    graph = to_graph(pack([from_atoms(molecule("CO2"))]), 5.0, torch.float64)
    forces = energy_and_forces(small(kind), graph).forces
    assert torch.isfinite(forces).all()
    torch.testing.assert_close(forces[0], torch.zeros(3, dtype=torch.float64))
    assert forces[:, :2].abs().max() < 1e-12


@every_network
def test_a_network_survives_one_channel_and_no_atoms(kind: str) -> None:
    network = build(kind, {"channels": 1, "layers": 1})
    said = energy_and_forces(network, to_graph(pack([]), 5.0))
    assert said.energies.shape == (0,)
    assert said.forces.shape == (0, 3)
    assert said.descriptors.shape == (0, 1)
