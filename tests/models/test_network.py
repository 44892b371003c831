"""Building networks, and what holds for every network beyond the potential's laws."""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from pydantic import TypeAdapter, ValidationError

from alloop.config.sections.potentials import Potential
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.models.graph import edge_vectors, to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.models.settings import NETWORKS, network_settings
from tests.models.kinds import LEAST, SMALL, small

WATER = from_atoms(molecule("H2O"))
every_network = pytest.mark.parametrize("kind", sorted(SMALL))

# ViSNet's vectors are zero before its first layer and not read after its last.
UNUSED = {
    "visnet": [
        "layers.0.vec_proj.weight",
        "layers.0.f_proj.weight",
        "layers.0.f_proj.bias",
        "layers.0.w_src_proj.weight",
        "layers.0.w_trg_proj.weight",
        "gates.1.vec2_proj.weight",
    ]
}


@every_network
def test_a_seed_gives_the_same_weights_and_leaves_torch_alone(kind: str) -> None:
    before = torch.random.get_rng_state()
    one = build_network(kind, SMALL[kind], 3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    two, other = (
        build_network(kind, SMALL[kind], 3),
        build_network(kind, SMALL[kind], 4),
    )
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@every_network
def test_settings_rebuild_the_network_with_all_defaults_spelled_out(kind: str) -> None:
    network = build_network(kind)
    again = build_network(network.kind, network.settings)
    assert again.settings == network.settings
    assert network.settings == NETWORKS[kind]().values
    assert network.cutoff == network.settings["cutoff"] == 5.0


@every_network
def test_a_campaign_that_names_a_kind_gets_its_defaults(kind: str) -> None:
    section = TypeAdapter(Potential).validate_python({"kind": kind})
    settings = section.model_dump(exclude={"kind", "repulsion"})
    assert network_settings(kind, settings) == NETWORKS[kind]()


def test_the_defaults_are_those_that_did_best() -> None:
    assert build_network("painn").settings == {
        "channels": 64,
        "layers": 3,
        "radial": 8,
        "cutoff": 5.0,
    }
    # a later setting leaves the bytes of models as they were, unless it is changed
    assert (
        build_network("painn", {"softening": 1e-4})
        .settings.keys()
        .isdisjoint({"softening"})
    )
    assert build_network("painn", {"softening": 0.1}).settings["softening"] == 0.1
    assert build_network("egnn").settings["channels"] == 128
    assert build_network("egnn").settings["layers"] == 5


def test_an_unknown_kind_or_setting_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"painn or egnn or .*, got 'nequip'"):
        build_network("nequip")
    with pytest.raises(InputError, match="painn has no setting depth; it has channels"):
        build_network("painn", {"depth": 3})


@every_network
def test_forces_can_be_differentiated_again(kind: str) -> None:
    """∂(F·v)/∂R = -Hv, against differences of forces."""
    graph = to_graph(pack_frames([WATER]), 5.0, torch.float64)
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
    graph = to_graph(pack_frames(frames), 5.0, torch.float64)
    network = small(kind)
    said = energy_and_forces(network, graph, create_graph=True)
    (said.forces.square().sum() + said.energies.square().sum()).backward()
    lost = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert lost == UNUSED.get(kind, [])
    assert not said.descriptors.requires_grad
    assert graph.pos.grad is None
    assert not graph.pos.requires_grad


@every_network
def test_a_doubled_cell_has_twice_the_energy_and_the_same_forces(kind: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=2)
    one, two = from_atoms(atoms), from_atoms(atoms * (2, 1, 1))
    network = small(kind)
    single = energy_and_forces(
        network, to_graph(pack_frames([one]), 5.0, torch.float64)
    )
    double = energy_and_forces(
        network, to_graph(pack_frames([two]), 5.0, torch.float64)
    )
    torch.testing.assert_close(double.energies, 2 * single.energies)
    torch.testing.assert_close(double.forces, single.forces.repeat(2, 1))


@every_network
def test_charge_and_spin_change_the_energy(kind: str) -> None:
    states = [(0, 0), (1, 0), (0, 2)]
    frames = [from_atoms(molecule("OH"), *state) for state in states]
    graph = to_graph(pack_frames(frames), 5.0, torch.float64)
    energies = small(kind)(graph).energies.detach().numpy()
    assert len(np.unique(np.round(energies, 6))) == 3


@every_network
def test_a_linear_molecule_has_finite_forces_along_its_axis(kind: str) -> None:
    """Vector features vanish at its centre by symmetry."""
    graph = to_graph(pack_frames([from_atoms(molecule("CO2"))]), 5.0, torch.float64)
    forces = energy_and_forces(small(kind), graph).forces
    assert torch.isfinite(forces).all()
    torch.testing.assert_close(forces[0], torch.zeros(3, dtype=torch.float64))
    assert forces[:, :2].abs().max() < 1e-12


@every_network
def test_a_network_survives_one_channel_and_no_atoms(kind: str) -> None:
    network = build_network(kind, LEAST[kind])
    said = energy_and_forces(network, to_graph(pack_frames([]), 5.0))
    assert said.energies.shape == (0,)
    assert said.forces.shape == (0, 3)
    assert said.descriptors.shape == (0, 1)


def hydrogens(distance: float) -> Frame:
    return Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))


LONELY = [Frame(np.array([8]), np.zeros((1, 3))), hydrogens(7.0)]


@every_network
def test_atoms_that_see_nobody_have_an_energy_and_no_force(kind: str) -> None:
    graph = to_graph(pack_frames([*LONELY, hydrogens(70.0)]), 5.0, torch.float64)
    energies, forces, _ = energy_and_forces(small(kind), graph)
    assert torch.isfinite(energies).all()
    assert not forces.any()
    torch.testing.assert_close(energies[1], energies[2], rtol=1e-12, atol=0.0)


@every_network
def test_atoms_alone_or_in_a_line_can_be_trained_on(kind: str) -> None:
    graph = to_graph(
        pack_frames([*LONELY, from_atoms(molecule("CO2"))]), 5.0, torch.float64
    )
    network = small(kind)
    said = energy_and_forces(network, graph, create_graph=True)
    (said.forces.square().sum() + said.energies.square().sum()).backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(g is None or torch.isfinite(g).all() for g in gradients)
    assert any(g is not None and g.any() for g in gradients)


@every_network
def test_edges_beyond_the_cutoff_do_not_matter(kind: str) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=3)
    network = small(kind, cutoff=2.5)
    graph = to_graph(pack_frames([from_atoms(atoms)]), 2.5, torch.float64)
    near = torch.linalg.vector_norm(edge_vectors(graph), dim=1) < 2.5
    assert 0 < near.sum() < len(near)
    fewer = graph.clone().update(
        {"edge_index": graph.edge_index[:, near], "shift": graph.shift[near]}
    )
    all_pairs, pruned = (energy_and_forces(network, g) for g in (graph, fewer))
    torch.testing.assert_close(pruned.energies, all_pairs.energies)
    torch.testing.assert_close(pruned.forces, all_pairs.forces, rtol=0, atol=1e-12)


@every_network
def test_two_derivatives_vanish_at_the_cutoff(kind: str) -> None:
    """The force between two atoms ends at least as the square of what is left."""
    frames = [hydrogens(5.0 - left) for left in (0.02, 0.01)]
    graph = to_graph(pack_frames(frames), 5.0, torch.float64)
    far, near = energy_and_forces(small(kind), graph).forces[1::2, 2].abs()
    assert far > 3.5 * near > 0


def test_channels_of_visnet_are_a_multiple_of_its_heads() -> None:
    with pytest.raises(InputError, match=r"multiple of heads \(8\), got 12"):
        build_network("visnet", {"channels": 12})
    with pytest.raises(ValidationError, match=r"multiple of heads \(8\), got 12"):
        TypeAdapter(Potential).validate_python({"kind": "visnet", "channels": 12})


def test_building_leaves_no_file_in_the_temporary_folder(tmp_path: Path) -> None:
    script = (
        "from alloop.models.network import build_network;"
        "build_network('painn'); build_network('visnet')"
    )
    given = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [sys.executable, "-c", script],
        env=given | {"TMPDIR": str(tmp_path)},
        check=True,
    )
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_module_of_the_users_stays_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    files = [tmp_path / "my_propagate.py", folder / "their_propagate.py"]
    for file in files:
        file.write_text("x = 1\n")
        monkeypatch.syspath_prepend(file.parent)
        import_module(file.stem)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    build_network("painn")
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("kind", ["painn", "tensor-painn"])
def test_softened_lengths_make_planar_molecules_smooth(kind: str) -> None:
    """The second derivative out of the plane changes slowly, as energies do."""
    planar = from_atoms(molecule("H2CO"))
    heights = torch.linspace(0.0, 0.1, 21, dtype=torch.float64)  # Å, of the carbon
    frames = to_graph(pack_frames([planar] * len(heights)), 5.0, torch.float64)

    def curvature_change(softening: float) -> float:
        network = small(kind, softening=softening)
        pos = frames.pos.clone().reshape(len(heights), -1, 3)
        pos[:, 1, 0] += heights
        energies, _ = network(frames.clone().update({"pos": pos.reshape(-1, 3)}))
        second = energies.detach().diff(n=2)
        return float((second.max() - second.min()) / second.abs().max())

    assert abs(planar.positions[:, 0]).max() < 1e-9
    assert curvature_change(0.1) < 0.5 * curvature_change(1e-4)
