"""CHGNet through our graph, against the package's own predictions."""

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from alloop.config import load_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import GIGAPASCAL
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.models.settings import CHGNetSettings
from alloop.models.universal.chgnet import CHGNet, MLPPart, gated_mlp, require_package
from alloop.potentials.learned import LearnedPotential
from alloop.testing.potentials import strained_copies
from tests.models.universal.shared import check_laws
from tests.models.universal.shared import shaken_atoms as shaken

pytest.importorskip("chgnet")


@pytest.fixture(scope="module")
def theirs() -> Any:
    from chgnet.model import CHGNet as Package

    with contextlib.redirect_stdout(io.StringIO()):
        return Package.load(use_device="cpu", verbose=False)


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize(
    "atoms",
    [
        shaken(molecule("CH3CH2OH")),
        shaken(bulk("Si")),  # atoms that see their own images
        shaken(bulk("NaCl", "rocksalt", a=5.6, cubic=True)),
    ],
    ids=str,
)
def test_energies_and_forces_are_the_package_s_own(theirs: Any, atoms: Atoms) -> None:
    """Theirs needs a cell, and adds its reference energies."""
    from pymatgen.core import Lattice, Structure

    inside = atoms.copy()
    if not atoms.pbc.any():
        inside.positions -= inside.positions.mean(axis=0)
        inside.cell = [30.0, 30.0, 30.0]
    structure = Structure(
        Lattice(inside.cell.array),
        inside.get_chemical_symbols(),
        inside.positions,
        coords_are_cartesian=True,
    )
    said = theirs.predict_structure(structure, task="ef")
    references = theirs.composition_model.fc.weight[0].detach().numpy()
    expected = float(said["e"]) * len(atoms) - references[atoms.numbers - 1].sum()
    graph = to_graph(pack_frames([from_atoms(atoms)]), 6.0, torch.float64)
    ours = energy_and_forces(build_network("chgnet", dtype=torch.float64), graph)
    assert float(ours.energies[0]) == pytest.approx(expected, abs=2e-5)
    np.testing.assert_allclose(ours.forces, said["f"], atol=1e-4)
    assert ours.descriptors.shape == (len(atoms), 64)


def test_the_laws_hold_in_float64_and_in_its_own_float32() -> None:
    frames = [from_atoms(shaken(molecule(x))) for x in ("H2O", "CH4", "CO2")]
    known = dict.fromkeys(range(1, 19), -1.0)
    check_laws("chgnet", known, frames, cutoffs=(6.0,), tolerances=(1e-8, 1e-4))


def test_forces_are_minus_the_gradient_in_the_limit() -> None:
    """Its surface bends within 0.01 Å, so that the law's own steps are too long."""
    known = dict.fromkeys(range(1, 19), -1.0)
    potential = LearnedPotential(build_network("chgnet", dtype=torch.float64), known)
    plain = LearnedPotential(build_network("chgnet"), known)
    h = 1e-5  # Å
    for name in ("H2O", "CH4", "CO2"):
        batch = pack_frames([from_atoms(shaken(molecule(name)))])
        u = np.random.default_rng(1).normal(size=batch.positions.shape)
        ends = (batch.with_positions(batch.positions + t * h * u) for t in (-1.0, 1.0))
        low, high = (potential.predict(end).energies[0] for end in ends)
        forces = potential.predict(batch).forces
        assert (high - low) / (2 * h) == pytest.approx(-(forces * u).sum(), abs=1e-5)
        np.testing.assert_allclose(plain.predict(batch).forces, forces, atol=2e-4)


@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_the_stress_is_the_slope_of_the_energy_under_strain(theirs: Any) -> None:
    """And the package's own, which is in GPa."""
    from pymatgen.io.ase import AseAtomsAdaptor

    salt = shaken(bulk("NaCl", "rocksalt", a=5.5))
    network = build_network("chgnet", dtype=torch.float64)
    potential = LearnedPotential(network, dict.fromkeys((11, 17), -1.0))
    found = potential.predict(pack_frames([from_atoms(salt)])).stress
    stress = tensor_of_voigt(np.asarray(found)[0])
    u = np.random.default_rng(1).normal(size=(3, 3))
    u, h = u + u.T, 1e-6
    ends = strained_copies(from_atoms(salt), np.array([-h * u, h * u]))
    low, high = potential.predict(ends).energies
    slope = (high - low) / (2 * h) / salt.get_volume()
    assert float((stress * u).sum()) == pytest.approx(slope, abs=1e-6)
    structure = AseAtomsAdaptor.get_structure(salt)
    own = theirs.predict_structure(structure, task="efs")["s"] * GIGAPASCAL
    np.testing.assert_allclose(stress, own, atol=1e-4)


def test_a_single_atom_and_a_far_pair_have_no_forces() -> None:
    far = Atoms("HO", [[0, 0, 0], [0, 0, 6.5]])
    frames = pack_frames([from_atoms(x) for x in (Atoms("H"), Atoms("O"), far)])
    said = LearnedPotential(build_network("chgnet"), {1: 0.0, 8: 0.0}).predict(frames)
    assert np.abs(said.forces).max() == 0.0
    assert said.energies[2] == pytest.approx(said.energies[:2].sum(), abs=1e-6)


def test_a_gated_layer_of_gathered_parts_is_that_of_their_concatenation() -> None:
    layer = CHGNet(CHGNetSettings()).net.bond_conv_layers[0].twoBody_bond
    torch.manual_seed(0)
    bonds, atoms, turns = torch.randn(5, 64), torch.randn(3, 64), torch.randn(7, 64)
    one, centre = torch.randint(5, (7,)), torch.randint(3, (7,))
    parts = (
        MLPPart(bonds, one),
        MLPPart(bonds, one.flip(0)),
        MLPPart(turns),
        MLPPart(atoms, centre),
    )
    rows = [bonds[one], bonds[one.flip(0)], turns, atoms[centre]]
    torch.testing.assert_close(gated_mlp(layer, parts), layer(torch.cat(rows, dim=1)))


def test_what_is_frozen_stays_so() -> None:
    free = {
        freeze: {
            n
            for n, p in CHGNet(CHGNetSettings(freeze=freeze)).named_parameters()
            if p.requires_grad
        }
        for freeze in ("nothing", "embeddings", "body")
    }
    assert free["body"] < free["embeddings"] < free["nothing"]
    heads = ("net.atom_conv_layers.3", "net.mlp", "net.readout_norm", "net.site_wise")
    assert all(name.startswith(heads) for name in free["body"])
    again = LearnedPotential(CHGNet(CHGNetSettings(freeze="body")), {1: 0.0}).network
    assert {n for n, p in again.named_parameters() if p.requires_grad} == free["body"]


def test_versions_differ_and_a_wrong_one_is_refused() -> None:
    graph = to_graph(pack_frames([from_atoms(molecule("H2O"))]), 6.0)
    one, other = (
        energy_and_forces(build_network("chgnet", {"version": x}), graph).energies
        for x in ("0.3.0", "r2scan")
    )
    assert float((one - other).abs()) > 0.01
    with pytest.raises(InputError, match=r"version of chgnet to be 0\.3\.0 or r2scan"):
        build_network("chgnet", {"version": "0.1"})


def test_without_the_package_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: c\nstart: [{molecule: H2O}]\npotential: {kind: chgnet}\n"
        "levels: {expensive: {kind: toy}}\n"
    )
    assert load_campaign(file).plan.potential.kind == "chgnet"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match="chgnet is not installed"):
        load_campaign(file)
    with pytest.raises(InputError, match=r"pip install 'alloop\[chgnet\]'"):
        require_package()
