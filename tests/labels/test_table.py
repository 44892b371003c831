"""Labels out of a file: found by the frame's content, refused where they are not."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from alloop.core.atoms import from_atoms
from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import LabelChild
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import check_level, table_level

KCAL = 0.0433641  # eV


def waters(count: int = 3, seed: int = 0) -> list[Atoms]:
    """Water molecules with energies and forces that sum to zero."""
    rng = np.random.default_rng(seed)
    frames = [molecule("H2O") for _ in range(count)]
    for atoms in frames:
        atoms.positions += 0.05 * rng.standard_normal((3, 3))
        push = atoms.positions[1] - atoms.positions[0]
        atoms.info["REF_energy"] = float(rng.normal())
        atoms.arrays["REF_forces"] = np.array([push, -push, 0 * push])
    return frames


def label_of(level: Level, atoms: Atoms) -> Label | Unlabelled:
    return DirectLabeller(level).label(from_atoms(atoms))


def good(level: Level, atoms: Atoms) -> Label:
    record = label_of(level, atoms)
    assert isinstance(record, Label), record
    return record


def test_an_extxyz_gives_back_the_labels_that_it_holds(
    tmp_path: Path, child: LabelChild
) -> None:
    frames = waters()
    write(tmp_path / "water.extxyz", frames)
    level = table_level(tmp_path / "water.extxyz")
    for labeller in (DirectLabeller(level), child.labeller(level)):
        for atoms in (frames[1], frames[0], frames[1]):
            record = labeller.label(from_atoms(atoms))
            assert isinstance(record, Label), record
            assert record.energy == pytest.approx(atoms.info["REF_energy"], abs=1e-7)
            np.testing.assert_allclose(
                record.forces, atoms.arrays["REF_forces"], atol=1e-7
            )


def test_a_calculator_s_results_in_extxyz_and_in_a_database_are_labels_too(
    tmp_path: Path,
) -> None:
    atoms = waters(1)[0]
    energy, forces = atoms.info.pop("REF_energy"), atoms.arrays.pop("REF_forces")
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    write(tmp_path / "a.extxyz", atoms)
    connect(tmp_path / "a.db").write(atoms)
    for name in ("a.extxyz", "a.db"):
        label = good(table_level(tmp_path / name), atoms)
        assert label.energy == pytest.approx(energy, abs=1e-7)


def test_an_npz_is_read_in_the_units_that_it_must_name(tmp_path: Path) -> None:
    atoms = waters(1)[0]
    file = tmp_path / "md17.npz"
    forces = atoms.arrays["REF_forces"][None]
    np.savez(file, z=atoms.numbers, R=atoms.positions[None], E=[[2.0]], F=forces)
    with pytest.raises(InputError, match="`energy_unit` and `length_unit`"):
        table_level(file)
    level = table_level(file, energy_unit="kcal/mol", length_unit="angstrom")
    label = good(level, atoms)
    assert label.energy == pytest.approx(2 * KCAL, rel=1e-5)
    np.testing.assert_allclose(label.forces, KCAL * forces[0], rtol=1e-5)


def test_charge_and_spin_that_a_file_leaves_out_can_be_told(tmp_path: Path) -> None:
    atoms = waters(1)[0]
    write(tmp_path / "ion.extxyz", atoms)
    level = table_level(tmp_path / "ion.extxyz", charge=1, spin=1)
    cation = from_atoms(atoms, charge=1, spin=1)
    assert isinstance(DirectLabeller(level).label(cation), Label)
    assert label_of(level, atoms).failure is Failure.MISSING


def test_a_frame_that_is_not_there_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "water.extxyz", waters(3))
    stranger = waters(1, seed=9)[0]
    record = label_of(table_level(tmp_path / "water.extxyz"), stranger)
    assert isinstance(record, Unlabelled)
    assert record.failure is Failure.MISSING
    assert "none of the table's 3 frames is this H2O" in record.message


def test_stored_forces_that_cannot_be_right_do_not_pass_the_gate(
    tmp_path: Path,
) -> None:
    atoms = waters(1)[0]
    atoms.arrays["REF_forces"][0] += 1.0
    write(tmp_path / "water.extxyz", atoms)
    record = label_of(table_level(tmp_path / "water.extxyz"), atoms)
    assert record.failure is Failure.GATE


def test_what_is_done_to_a_label_does_not_reach_the_table(tmp_path: Path) -> None:
    atoms = waters(1)[0]
    write(tmp_path / "water.extxyz", atoms)
    level = table_level(tmp_path / "water.extxyz")
    good(level, atoms).forces[:] = 0.0
    assert np.abs(good(level, atoms).forces).max() > 0.1


def test_a_file_that_moves_is_the_same_level_and_one_that_changes_is_another(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / "a.extxyz", tmp_path / "b.extxyz"
    write(old, waters(2))
    level = table_level(old)
    old.rename(new)
    assert table_level(new).id == level.id
    write(old, waters(3))
    assert table_level(old).id != level.id
    assert table_level(new, energy_unit="kJ/mol").id != level.id


def test_a_file_that_changed_meanwhile_is_refused_in_one_sentence(
    tmp_path: Path, child: LabelChild
) -> None:
    frames = waters(2)
    file = tmp_path / "water.extxyz"
    write(file, frames)
    level = table_level(file)
    write(file, waters(2, seed=4))
    record = label_of(level, frames[0])
    assert isinstance(record, Unlabelled)
    assert "has changed since" in record.message
    assert "has changed since" in check_level(level, "HO", child.labeller(level))[0]
    file.unlink()
    assert "No such file" in check_level(level, "HO", child.labeller(level))[0]


def test_two_energies_of_one_frame_and_missing_elements_are_found_before(
    tmp_path: Path, child: LabelChild
) -> None:
    frames = waters(2)
    file = tmp_path / "water.extxyz"
    write(file, frames)
    level = table_level(file)
    assert check_level(level, "HO", child.labeller(level)) == []
    assert "holds C" in check_level(level, "HOC", child.labeller(level))[0]
    twin = frames[0].copy()
    twin.info["REF_energy"] += 0.1
    write(file, [*frames, twin])
    level = table_level(file)
    problems = check_level(level, "HO", child.labeller(level))
    assert "two table energies" in problems[0]
    assert len(problems) == 1
