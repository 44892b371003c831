"""LearnedPotential: the laws on every network, and what it adds to a network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.models.checkpoint import (
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
    content_id,
)
from alloop.models.graph import to_graph
from alloop.models.network import Network, build_network
from alloop.potentials import learned
from alloop.potentials.learned import LearnedPotential, from_checkpoint
from alloop.potentials.repulsion import ZBL, Zbl
from alloop.testing import check_atom_energies, check_potential, check_rotation
from tests.models.kinds import SMALL, LittleMemory

REFERENCES = {1: -13.6, 6: -1029.4, 8: -2041.8}
GAIN = {
    "painn": 1.3,
    "tensor-painn": 1.2,
    "egnn": 2.0,
    "tensornet": 1.0,
    "gemnet": 0.7,
    "schnet": 1.3,
    "visnet": 1.0,
}
every_network = pytest.mark.parametrize("kind", sorted(SMALL))


def lively(kind: str, dtype: torch.dtype = torch.float64) -> Network:
    """Random weights larger than at birth: curved enough to break a law."""
    settings = SMALL[kind] | {"channels": 12, "cutoff": 4.0}
    network = build_network(kind, settings, 5, dtype)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(GAIN[kind])
    return network


def frames(*names: str) -> list[Frame]:
    rng = np.random.default_rng(1)
    made = []
    for name in names:
        atoms = molecule(name)
        atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
        made.append(from_atoms(atoms))
    return made


MOLECULES = frames("H2O", "CH3OH", "H2CO", "H2O")


@every_network
def test_networks_keep_all_laws_in_float64(kind: str) -> None:
    potential = LearnedPotential(lively(kind), REFERENCES, scale=0.7)
    check_potential(potential, MOLECULES, tolerance=1e-7)


@every_network
def test_energies_of_atoms_hold_references_repulsion_and_nothing_of_far_ones(
    kind: str,
) -> None:
    potential = LearnedPotential(lively(kind), REFERENCES, scale=0.7, repulsion=ZBL)
    near = Frame([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.3]])  # a third of a bond
    far = Frame([6], [[0.0, 0.0, 70.0]])
    both = Frame([8, 1, 6], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.3], [0.0, 0.0, 70.0]])
    check_atom_energies(potential, [near, far, both], tolerance=1e-12)
    energies = potential.atom_energies(pack_frames([near, far, both]))
    np.testing.assert_allclose(energies[:3], energies[3:], rtol=1e-9)
    bare = LearnedPotential(lively(kind), REFERENCES, scale=0.7)
    more = energies[:2] - bare.atom_energies(pack_frames([near]))
    repelled = ZBL.predict(pack_frames([near])).energies[0]
    np.testing.assert_allclose(more, repelled / 2, rtol=1e-9)
    shifted = LearnedPotential(lively(kind), {**REFERENCES, 8: 1.0}, scale=0.7)
    moved = shifted.atom_energies(pack_frames([near])) - (energies[:2] - more)
    np.testing.assert_allclose(moved, [1.0 - REFERENCES[8], 0.0], atol=1e-9)


@every_network
def test_networks_keep_all_laws_in_float32(kind: str) -> None:
    network = lively(kind, torch.float32)
    potential = LearnedPotential(network, REFERENCES, scale=0.7)
    check_potential(potential, MOLECULES, tolerance=1e-3)


@every_network
def test_networks_keep_symmetry_in_a_cell(kind: str) -> None:
    water = molecule("H2O", cell=[4.0, 4.5, 5.0], pbc=True)
    water.positions += 0.3
    potential = LearnedPotential(lively(kind), REFERENCES)
    check_rotation(potential, [from_atoms(water)], tolerance=1e-7)


@every_network
def test_stress_is_the_slope_of_the_energy_under_strain(kind: str) -> None:
    water = molecule("H2O", cell=[3.0, 3.3, 3.6], pbc=True)
    water.set_cell(water.cell + 0.2 * np.eye(3, k=-1), scale_atoms=False)
    water.positions[1] = water.positions[0] + [0.0, 0.5, 0.3]  # repulsion too
    potential = LearnedPotential(lively(kind), REFERENCES, 0.7, repulsion=Zbl())
    (found,) = potential.predict(pack_frames([from_atoms(water)])).stress
    step = 1e-5
    for place, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (-1.0, 1.0):
            strain = np.zeros((3, 3))
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            moved = water.copy()
            moved.set_cell(water.cell @ (np.eye(3) + strain), scale_atoms=True)
            batch = replace(
                pack_frames([from_atoms(water)]),  # not rounded, as a frame would be
                positions=moved.positions,
                cells=moved.cell.array[None],
            )
            energies.append(potential.predict(batch).energies[0])
        slope = (energies[1] - energies[0]) / (2 * step) / water.get_volume()
        assert found[place] == pytest.approx(slope, abs=1e-7, rel=1e-5)


def test_only_cells_have_a_stress() -> None:
    potential = LearnedPotential(lively("painn"), REFERENCES)
    free, slab, cell = (molecule("H2O", cell=[4.0, 4.5, 5.0]) for _ in range(3))
    slab.pbc, cell.pbc = [True, True, False], True
    assert potential.predict(pack_frames([from_atoms(free)])).stress is None
    mixed = potential.predict(pack_frames([from_atoms(x) for x in (free, slab, cell)]))
    assert mixed.stress is not None
    assert np.isnan(mixed.stress[:2]).all()
    assert np.isfinite(mixed.stress[2]).all()


@every_network
def test_the_random_networks_of_these_tests_are_no_constants(kind: str) -> None:
    said = LearnedPotential(lively(kind), REFERENCES).predict(pack_frames(MOLECULES))
    assert np.abs(said.forces).mean() > 0.02


def test_energies_are_scaled_and_get_references_in_double_precision() -> None:
    network = lively("painn", torch.float32)
    batch = pack_frames(MOLECULES)
    raw = network(to_graph(batch, network.cutoff)).energies.detach().numpy()
    references = {z: 1e9 * e for z, e in REFERENCES.items()}
    plain = LearnedPotential(network, dict.fromkeys(REFERENCES, 0.0), 3.0)
    heavy = LearnedPotential(network, references, 3.0)
    np.testing.assert_array_equal(
        plain.predict(batch).energies, 3.0 * raw.astype(np.float64)
    )
    expected = [sum(references[int(z)] for z in f.numbers) for f in MOLECULES]
    shift = heavy.predict(batch).energies - plain.predict(batch).energies
    np.testing.assert_allclose(shift, expected, rtol=1e-15)
    np.testing.assert_array_equal(
        heavy.predict(batch).forces, plain.predict(batch).forces
    )


def test_an_element_that_was_not_trained_on_is_refused_by_name() -> None:
    potential = LearnedPotential(lively("painn"), {1: 0.0, 8: 0.0})
    with pytest.raises(InputError, match=r"trained on \(H, O\), got C; train it"):
        potential.predict(pack_frames(MOLECULES))
    heavy = Frame(np.array([118, 1]), np.eye(2, 3))
    with pytest.raises(InputError, match="got Og"):
        potential.predict(pack_frames([heavy]))


@every_network
def test_a_checkpoint_brings_the_same_bits_back(kind: str) -> None:
    potential = LearnedPotential(lively(kind, torch.float32), REFERENCES, 0.3)
    checkpoint = potential.checkpoint()
    again = from_checkpoint(checkpoint_from_bytes(checkpoint_to_bytes(checkpoint)))
    assert isinstance(again, Storable)
    assert again.references == potential.references
    assert again.scale == 0.3
    assert content_id(again.checkpoint()) == content_id(checkpoint)
    batch = pack_frames(MOLECULES)
    one = potential.predict(batch, descriptors=True)
    two = again.predict(batch, descriptors=True)
    np.testing.assert_array_equal(one.energies, two.energies)
    np.testing.assert_array_equal(one.forces, two.forces)
    assert one.descriptors is not None
    assert two.descriptors is not None
    np.testing.assert_array_equal(one.descriptors, two.descriptors)


def test_the_network_inside_is_out_of_reach_and_its_copy_can_be_trained() -> None:
    network = lively("painn")
    potential = LearnedPotential(network, REFERENCES)
    before = potential.predict(pack_frames(MOLECULES)).energies
    for copy in (network, potential.network):
        assert all(weight.requires_grad for weight in copy.parameters())
        with torch.no_grad():
            next(copy.parameters()).add_(1.0)
    np.testing.assert_array_equal(
        potential.predict(pack_frames(MOLECULES)).energies, before
    )


def test_large_batches_go_in_whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = LearnedPotential(lively("painn"), REFERENCES)
    molecules = frames(*["H2O", "CH3CH2OH", "H2O", "CH3OH"] * 3)
    whole = potential.predict(pack_frames(molecules), descriptors=True)
    monkeypatch.setattr(learned, "CHUNK", 8)
    parts = potential.predict(pack_frames(molecules), descriptors=True)
    again = potential.predict(pack_frames(molecules), descriptors=True)
    np.testing.assert_allclose(parts.energies, whole.energies, rtol=1e-12)
    np.testing.assert_allclose(parts.forces, whole.forces, atol=1e-10)
    assert parts.descriptors is not None
    assert parts.descriptors.shape == (len(pack_frames(molecules).numbers), 12)
    np.testing.assert_array_equal(parts.forces, again.forces)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(
    monkeypatch: pytest.MonkeyPatch, periodic: bool
) -> None:
    molecules = frames(*["H2O", "CH3CH2OH", "H2O", "CH3OH"] * 3)
    if periodic:
        box = {"cell": 9.0 * np.eye(3), "pbc": (True, True, True)}
        molecules = [replace(frame, **box) for frame in molecules]
    batch, network = pack_frames(molecules), lively("painn")
    whole = LearnedPotential(network, REFERENCES).predict(batch, descriptors=True)
    network.__class__ = LittleMemory
    monkeypatch.setattr(LittleMemory, "most", 20)
    potential = LearnedPotential(network, REFERENCES)
    monkeypatch.setattr(LittleMemory, "tried", ())
    parts = potential.predict(batch, descriptors=True)
    np.testing.assert_allclose(parts.energies, whole.energies, rtol=1e-12)
    np.testing.assert_allclose(parts.forces, whole.forces, atol=1e-10)
    np.testing.assert_allclose(parts.descriptors, whole.descriptors, atol=1e-10)
    if periodic:
        np.testing.assert_allclose(parts.stress, whole.stress, atol=1e-10)
    assert max(LittleMemory.tried) == len(batch.numbers)
    monkeypatch.setattr(LittleMemory, "tried", ())
    potential.predict(batch)
    assert max(LittleMemory.tried) <= 20  # what fitted is remembered


def test_a_frame_that_does_not_fit_into_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = lively("painn")
    network.__class__ = LittleMemory
    monkeypatch.setattr(LittleMemory, "most", 5)
    with pytest.raises(InputError, match="fit into the memory of cpu, one of 6 atoms"):
        LearnedPotential(network, REFERENCES).predict(pack_frames(MOLECULES))


def test_a_potential_is_the_same_on_another_device() -> None:
    """torch's CPU has two names, which are two devices to alloop."""
    here, batch = LearnedPotential(lively("painn"), REFERENCES), pack_frames(MOLECULES)
    there = here.on("cpu:0")
    assert here.on("cpu") is here
    assert (here.device, there.device) == ("cpu", "cpu:0")
    assert there.frozen_network is not here.frozen_network
    one, other = here.predict(batch), there.predict(batch)
    np.testing.assert_array_equal(one.forces, other.forces)
    assert content_id(here.checkpoint()) == content_id(there.checkpoint())


def test_no_frames_give_no_predictions() -> None:
    said = LearnedPotential(lively("painn"), REFERENCES).predict(
        pack_frames([]), descriptors=True
    )
    assert said.energies.shape == (0,)
    assert said.forces.shape == (0, 3)
    assert said.descriptors is not None
    assert said.descriptors.shape == (0, 12)
