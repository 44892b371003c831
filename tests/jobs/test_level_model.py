"""Levels of theory in the place of trained models."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.jobs.level_model import LevelPotential, level_model, named_level
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import universal_level
from alloop.labels.named_code import ase_level
from tests.cli.test_commands import refused, said

EMT_TEXT = "{kind: ase, calculator: ase.calculators.emt.EMT}"


@pytest.fixture
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=3)
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    return atoms


def emt() -> LevelPotential:
    level = ase_level("ase.calculators.emt.EMT")
    return LevelPotential(level, labeller=DirectLabeller(level))


def test_it_says_what_the_calculator_says_with_the_stress(copper: Atoms) -> None:
    found = emt().predict(pack_frames([from_atoms(copper)]), descriptors=True)
    copper.calc = EMT()
    np.testing.assert_allclose(found.energies, [copper.get_potential_energy()])
    np.testing.assert_allclose(found.forces, copper.get_forces(), atol=1e-6)
    assert found.stress is not None
    np.testing.assert_allclose(found.stress[0], copper.get_stress(), atol=1e-7)
    assert found.descriptors is None


def test_a_frame_beyond_the_level_is_one_sentence() -> None:
    with pytest.raises(InputError, match="EMT gives no energy and forces of a frame"):
        emt().predict(pack_frames([from_atoms(molecule("SiH4"))]))


@pytest.mark.parametrize("text", ["gfn2-xtb", "hf/sto-3g", EMT_TEXT, " so3lr "])
def test_short_names_and_mappings_are_levels(text: str) -> None:
    assert named_level(text) is not None


def test_a_yaml_file_is_a_level_or_a_campaign(tmp_path: Path) -> None:
    for name, text in (("level", EMT_TEXT), ("campaign", "name: x\nlevels: {}")):
        (tmp_path / f"{name}.yaml").write_text(text)
    level = named_level(str(tmp_path / "level.yaml"))
    assert level == ase_level("ase.calculators.emt.EMT")
    assert named_level(str(tmp_path / "campaign.yaml")) is None


def test_paths_stay_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf").mkdir()
    assert named_level("hf/sto-3g") is None
    assert named_level("water.model") is None


def test_md_of_a_calculator_conserves_energy(
    capsys: pytest.CaptureFixture[str], copper: Atoms, tmp_path: Path
) -> None:
    ase.io.write(tmp_path / "copper.xyz", copper)
    out = tmp_path / "out.xyz"
    where = (tmp_path / "copper.xyz", "--out", out)
    options = ("--steps", "20", "--kind", "verlet", "--timestep", "2", "--every", "4")
    assert "1 walker of 1" in said(capsys, "md", EMT_TEXT, *where, *options, "--quiet")
    frames = ase.io.read(out, ":")
    potential = np.array([x.get_potential_energy() for x in frames])
    kinetic = np.array([x.get_kinetic_energy() for x in frames])
    assert np.ptp(kinetic) > 100 * np.ptp(potential + kinetic)
    stress = frames[0].get_stress(voigt=True)
    copper.calc = EMT()
    np.testing.assert_allclose(stress, copper.get_stress(), atol=1e-6 * units.GPa)


def test_a_universal_potential_describes_atoms_itself(copper: Atoms) -> None:
    if find_spec("torchani") is None:
        pytest.skip("torchani is not installed")
    frames = [from_atoms(molecule(name)) for name in ("H2O", "CH4")]
    level = universal_level("ani")
    found = level_model(level, frames).predict(pack_frames(frames), descriptors=True)
    label = DirectLabeller(level).label(frames[1])
    assert isinstance(label, Label)
    np.testing.assert_allclose(found.forces[3:], label.forces, atol=1e-9)
    assert found.descriptors is not None
    with pytest.raises(InputError, match="expected elements that ani knows"):
        level_model(level, [from_atoms(copper)])
    charged = replace(frames[0], charge=1)
    with pytest.raises(InputError, match="charge 0 and spin 0"):
        level_model(level, [charged])


def test_md_refuses_elements_that_the_level_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ase.io.write(tmp_path / "gold.xyz", Atoms("Au2", [(0, 0, 0), (0, 0, 2.5)]))
    where = (tmp_path / "gold.xyz", "--out", tmp_path / "out.xyz")
    assert "Au" in refused(capsys, "md", "so3lr", *where)
    assert not (tmp_path / "out.xyz").exists()


def test_frames_are_compared_by_the_forces_of_a_level(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    known = [molecule("H2O") for _ in range(12)]
    for atoms in known:
        atoms.positions += rng.normal(0.0, 0.02, (3, 3))
    ase.io.write(tmp_path / "known.xyz", known)
    stretched = molecule("H2O")
    stretched.positions *= 0.7
    water = tmp_path / "water.xyz"
    ase.io.write(water, [known[0], stretched])
    level = "{kind: toy}"
    assert "--training FILE" in refused(capsys, "diagnose", level, water)
    training = ("--training", tmp_path / "known.xyz", "--radius", "1.3")
    rows = said(capsys, "diagnose", level, water, *training, "--json").splitlines()
    out = ['"forces"' in row and '"out": true' in row for row in rows]
    assert out == [False, True]


def test_soap_describes_atoms_where_it_is_installed(copper: Atoms) -> None:
    pytest.importorskip("dscribe", reason="dscribe is not installed: alloop[soap]")
    frames = [from_atoms(copper)]
    model = level_model(ase_level("ase.calculators.emt.EMT"), frames, [29])
    found = model.predict(pack_frames(frames), descriptors=True)
    assert found.descriptors is not None
    assert len(found.descriptors) == len(copper)
