"""Dipoles of labels against energies in a field."""

import numpy as np
import pytest
from ase.build import molecule
from pyscf import gto, scf

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.dipoles import stack_dipoles
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.core.units import BOHR, Floats
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.potentials.labeller_potential import LabellerPotential

FIELD = 1e-3  # hartree / (e bohr)


def dipole(level: str, frame: Frame) -> Floats | None:
    potential = LabellerPotential(DirectLabeller(level_from_name(level)))
    return potential.predict(pack_frames([frame])).dipoles


def energy_in_field(frame: Frame, field: Floats) -> float:
    """Return the HF/STO-3G energy in hartree in a uniform electric field."""
    atoms = list(zip(frame.numbers.tolist(), frame.positions.tolist(), strict=True))
    mol = gto.M(atom=atoms, basis="sto-3g", charge=frame.charge, verbose=0)
    mf = scf.RHF(mol).set(conv_tol=1e-12)
    core = mf.get_hcore() + np.einsum("x,xij->ij", field, mol.intor("int1e_r"))
    mf.get_hcore = lambda *_: core
    return float(mf.kernel() - mol.atom_charges() @ mol.atom_coords() @ field)


def hydronium() -> Frame:
    positions = np.array([[0.0, 0, 0.1], [0.9, 0, -0.2], [-0.5, 0.8, -0.2]])
    positions = np.append(positions, [[-0.5, -0.8, -0.2]], axis=0)
    return Frame(np.array([8, 1, 1, 1]), positions + 0.3, charge=1)


@pytest.mark.parametrize("frame", [from_atoms(molecule("H2O"), 0, 0), hydronium()])
def test_a_dipole_is_the_slope_of_the_energy_in_a_field(frame: Frame) -> None:
    slopes = [
        (energy_in_field(frame, -x) - energy_in_field(frame, x)) / (2.0 * FIELD)
        for x in FIELD * np.eye(3)
    ]
    found = dipole("hf/sto-3g", frame)
    assert found is not None
    np.testing.assert_allclose(found[0], np.array(slopes) * BOHR, atol=2e-5)


def test_coupled_cluster_and_labels_of_older_stores_have_none() -> None:
    frame = from_atoms(molecule("H2"), 0, 0)
    assert dipole("ccsd/sto-3g", frame) is None
    label = DirectLabeller(level_from_name("hf/sto-3g")).label(frame)
    assert isinstance(label, Label)
    assert stack_dipoles([label.details]) is not None
    some = stack_dipoles([label.details, {}])
    assert np.isfinite(some).all(axis=1).tolist() == [True, False]
    assert stack_dipoles([{}]) is None
