"""Conformers that chemists know, from SMILES."""

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.md.conformers import smiles_conformers
from alloop.md.contacts import closest_contact
from tests.conftest import skip_without


@pytest.fixture(autouse=True)
def _rdkit() -> None:
    skip_without("rdkit")


@pytest.mark.parametrize(
    ("smiles", "least", "most"),
    [
        ("O", 1, 1),
        ("CC", 1, 1),
        ("CCO", 2, 2),  # trans and gauche
        ("CCCC", 2, 2),  # likewise
        ("CC(=O)O", 2, 2),  # Z and E
        ("NCC(=O)O", 7, 9),  # Csaszar, J. Am. Chem. Soc. 114, 9568 (1992): eight
        ("OCCO", 7, 10),  # ten, some of them close
    ],
)
def test_all_conformers_of_small_molecules_are_there(
    smiles: str, least: int, most: int
) -> None:
    frames = smiles_conformers(smiles, 30, seed=1)
    assert least <= len(frames) <= most
    assert len({frame.id for frame in frames}) == len(frames)
    assert all(closest_contact(frame) > 0.8 for frame in frames)
    assert len({frame.numbers.tobytes() for frame in frames}) == 1


@pytest.mark.parametrize(
    ("smiles", "charge", "spin"),
    [("[NH4+]", 1, 0), ("[OH-]", -1, 0), ("C[CH2]", 0, 1), ("[O][O]", 0, 2)],
)
def test_charge_and_spin_are_those_of_the_smiles(
    smiles: str, charge: int, spin: int
) -> None:
    (frame, *_) = smiles_conformers(smiles, 3, seed=0)
    assert (frame.charge, frame.spin) == (charge, spin)


def test_a_spin_that_is_given_is_taken() -> None:
    (frame,) = smiles_conformers("[O][O]", 3, seed=0, spin=0)
    assert frame.spin == 0


def test_the_same_seed_gives_the_same_conformers_the_lowest_ones_first() -> None:
    first, again, few = (smiles_conformers("OCCO", n, seed=4) for n in (20, 20, 3))
    assert [x.id for x in first] == [x.id for x in again]
    assert len(few) == 3
    hydrogen_bond = first[0]
    oxygens = np.flatnonzero(hydrogen_bond.numbers == 8)
    distance = np.linalg.norm(np.diff(hydrogen_bond.positions[oxygens], axis=0))
    assert distance < 3.0  # gauche


@pytest.mark.parametrize("smiles", ["C1CC", "not a molecule", ""])
def test_what_is_no_smiles_is_refused_without_noise(
    smiles: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="expected a SMILES that RDKit can read"):
        smiles_conformers(smiles, 3, seed=0)
    assert capfd.readouterr().err == ""
