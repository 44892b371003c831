"""What a model may be asked about: species that it learned, and their likes."""

import json

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.species import Domain, Species


def batch(*names: str, charge: int = 0, spin: int = 0) -> Batch:
    return pack_frames([from_atoms(molecule(name), charge, spin) for name in names])


WATER = Domain.of(batch("H2O", "H2O"))
ALCOHOLS = Domain.of(batch("CH3OH", "CH3CH2OH"), batch("H2O"))


def test_a_model_of_water_knows_neutral_water_alone() -> None:
    assert WATER.species == (Species("H2O"),)
    assert WATER.refusal(batch("H2O")) is None
    for strange in (
        batch("H2O", charge=1, spin=1),
        batch("H2O", spin=2),
        batch("O", spin=2),
        batch("H2"),
        batch("OH", spin=1),
        pack_frames([from_atoms(molecule("H2O", cell=[9.0] * 3, pbc=True))]),
    ):
        with pytest.raises(InputError, match="trained on, H2O"):
            WATER.require(strange)
        assert WATER.strange(strange) is None


def test_a_model_of_several_molecules_may_meet_another_one_but_no_other_state() -> None:
    assert ALCOHOLS.strange(batch("H2O", "CH3OH")) is None
    other = batch("CH4", "H2O")
    assert ALCOHOLS.refusal(other) is None
    assert "CH4" in str(ALCOHOLS.strange(other))
    for outside in (
        batch("CH4", charge=1, spin=1),
        batch("CH3OH", spin=2),
        batch("OH"),  # a radical without its unpaired electron
    ):
        assert ALCOHOLS.refusal(outside) is not None


def test_states_that_were_learned_are_known_each_with_its_composition() -> None:
    both = Domain.of(batch("H2O"), batch("H2O", charge=1, spin=1))
    assert both.refusal(batch("H2O", charge=1, spin=1)) is None
    assert both.refusal(batch("OH", spin=1)) is not None


def test_cells_differ_in_size() -> None:
    copper = bulk("Cu")
    domain = Domain.of(pack_frames([from_atoms(copper)]))
    assert domain.refusal(pack_frames([from_atoms(copper.repeat(2))])) is None
    assert (
        domain.refusal(
            pack_frames([from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]]))])
        )
        is not None
    )


def test_a_domain_survives_json() -> None:
    rows = json.loads(json.dumps(ALCOHOLS.rows))
    assert Domain.from_rows(rows) == ALCOHOLS
