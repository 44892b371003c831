"""`start:` with conformers: one molecule, many shapes, in every part of a campaign."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from alloop import Campaign
from alloop.config.load import load_campaign
from alloop.core.errors import AlloopError
from alloop.loop import events as e
from alloop.loop.commands import Sample
from benchmarks.durability.comparison import store_contents
from tests.conftest import skip_without, write_toy
from tests.driver.test_own_parts import stop_after


def turned_peroxide(degrees: float) -> Atoms:
    atoms = molecule("H2O2")
    atoms.set_dihedral(2, 0, 1, 3, degrees, indices=[3])
    return atoms


@pytest.fixture
def peroxides(tmp_path: Path) -> Path:
    file = tmp_path / "shapes.xyz"
    write(file, [turned_peroxide(x) for x in (115.0, 245.0, 180.0)])
    return file


def start(peroxides: Path, **changes: object) -> Path:
    item = {"file": peroxides.name, "conformers": True}
    return write_toy(peroxides.parent, start=[item], **changes)


def test_conformers_of_a_file_are_one_start(peroxides: Path) -> None:
    setup = load_campaign(start(peroxides))
    assert len(setup.start) == 1
    assert [len(x) for x in setup.conformers.values()] == [2]
    apart = load_campaign(write_toy(peroxides.parent, start=[{"file": peroxides.name}]))
    assert len(apart.start) == 3
    assert apart.conformers == {}


def test_smiles_give_the_conformers_that_rdkit_finds(tmp_path: Path) -> None:
    skip_without("rdkit")
    item = {"smiles": "CC(=O)O", "conformers": 5}
    setup = load_campaign(write_toy(tmp_path, start=[item]))
    (frame,) = setup.start
    assert sorted(frame.numbers) == [1, 1, 1, 1, 6, 6, 8, 8]
    assert [len(x) for x in setup.conformers.values()] == [1]


def test_first_frames_and_validation_come_from_all_conformers(
    peroxides: Path,
) -> None:
    campaign = Campaign.from_yaml(start(peroxides))
    assert campaign.run().exit_code == 0
    turns = [entry.turn for entry in campaign.history().entries]
    (prepared,) = (x.event for x in turns if isinstance(x.event, e.Prepared))
    angles = [
        Atoms(x.numbers, x.positions).get_dihedral(2, 0, 1, 3) for x in prepared.seeds
    ]
    for number, shape in ((1, 245.0), (2, 180.0)):
        ours = np.array(angles[number::3])
        assert np.abs(ours - shape).mean() < 15
    walkers = [x for turn in turns for x in turn.commands if isinstance(x, Sample)]
    starts = {x.walker.frame.id for x in walkers}
    conformers = campaign.setup.conformers[0]
    assert {x.id for x in conformers} <= starts


def test_a_stopped_campaign_with_conformers_goes_on_to_the_same_bits(
    peroxides: Path, tmp_path: Path
) -> None:
    whole = Campaign.from_yaml(start(peroxides, store="whole.zarr"))
    whole.run()
    stopped = Campaign.from_yaml(start(peroxides, store="stopped.zarr"))
    assert stopped.run(observer=stop_after(3)).exit_code == 3
    Campaign.from_store(stopped.store).run()
    assert store_contents(stopped.store) == store_contents(whole.store)


def test_other_conformers_belong_to_another_campaign(peroxides: Path) -> None:
    file = start(peroxides)
    Campaign.from_yaml(file).run(observer=stop_after(3))
    write(peroxides, [turned_peroxide(x) for x in (115.0, 245.0)])
    with pytest.raises(AlloopError, match="starts from H2O2 in other structures"):
        Campaign.from_yaml(file).run()


def test_structures_of_other_atoms_are_no_conformers(peroxides: Path) -> None:
    swapped = turned_peroxide(120.0)[[2, 0, 1, 3]]
    write(peroxides, [turned_peroxide(115.0), swapped])
    with pytest.raises(AlloopError, match="structure 1 has other atoms, another order"):
        load_campaign(start(peroxides))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"smiles": "C1CC"}, "a SMILES that RDKit can read, got `C1CC`"),
        ({"smiles": "CC", "conformers": 0}, "conformers"),
    ],
)
def test_what_is_no_molecule_is_told(
    tmp_path: Path, item: dict[str, object], message: str
) -> None:
    skip_without("rdkit")
    with pytest.raises(AlloopError, match=message):
        load_campaign(write_toy(tmp_path, start=[item]))
