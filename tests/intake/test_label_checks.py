"""Units that cannot be right are named."""

from pathlib import Path

import numpy as np
import pytest

from alloop.core.units import (
    BOHR,
    ENERGY_UNITS,
    HARTREE,
    KCAL_PER_MOL,
)
from alloop.intake import energy_work_ratio, read_labels

DATA = Path(__file__).parents[3] / "shared" / "data"
ETHANOL = DATA / "md17_ccsd" / "ethanol.npz"
FORMALDEHYDE = DATA / "h2co" / "h2co_ccsdt_avtz_4001.npz"


def needs(path):
    reason = f"the reference data are not in {DATA}"
    return pytest.mark.skipif(not path.exists(), reason=reason)


def test_right_units_raise_no_doubt(saved):
    intake = read_labels(saved())
    assert intake.warnings == ()
    assert energy_work_ratio(intake) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("unit", sorted(set(ENERGY_UNITS) - {"eV"}))
def test_total_energies_tell_the_unit_of_energy(saved, unit):
    """Energies and forces in `unit`, read as eV: the slope alone would not tell."""
    factor = 1 / ENERGY_UNITS[unit]
    intake = read_labels(saved(energy=factor, force=factor))
    assert any(f"; {unit} would explain it" in x for x in intake.warnings)
    assert not any("near frames" in x for x in intake.warnings)


@pytest.mark.parametrize(
    ("written", "declared"),
    [("bohr", "angstrom"), ("angstrom", "bohr"), ("nm", "angstrom")],
)
def test_bond_lengths_tell_the_unit_of_length(saved, written, declared):
    length = {"bohr": 1 / BOHR, "angstrom": 1.0, "nm": 0.1}[written]
    path = saved(length=length, force=1 / length)
    intake = read_labels(path, length_unit=declared, force_unit=f"eV/{declared}")
    assert f"lengths in {written} would explain it" in intake.warnings[0]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_forces_that_no_molecule_feels_are_doubted(saved, scale):
    intake = read_labels(saved(force=scale))
    assert any("the typical force is" in x for x in intake.warnings)


@pytest.mark.parametrize(
    ("energy", "force", "explanation"),
    [
        (1, 1 / KCAL_PER_MOL, "energies in eV with forces in kcal/mol/angstrom"),
        (1, BOHR / HARTREE, "energies in eV with forces in hartree/bohr"),
        (1, BOHR, "energies in eV with forces in eV/bohr"),
        (1 / HARTREE, 1, "energies in hartree with forces in eV/angstrom"),
        (1 / KCAL_PER_MOL, 1, "energies in kcal/mol with forces in eV/angstrom"),
    ],
)
def test_energies_and_forces_in_different_units_are_told(
    saved, energy, force, explanation
):
    doubts = read_labels(saved(energy=energy, force=force)).warnings
    (found,) = [x for x in doubts if "near frames" in x]
    assert explanation in found


def test_hartree_with_forces_per_bohr_beside_angstrom_is_told(saved):
    path = saved(energy=1 / HARTREE, force=BOHR / HARTREE)
    (found,) = read_labels(path, energy_unit="hartree").warnings
    assert "energies in hartree with forces in hartree/bohr would explain it" in found


def test_gradients_in_place_of_forces_are_told(saved):
    (found,) = read_labels(saved(force=-1)).warnings
    assert "of the other sign" in found


def test_energies_of_other_frames_say_nothing_of_units(water, saved):
    shuffled = np.random.default_rng(1).permutation(water.energies)
    assert energy_work_ratio(read_labels(saved(E=shuffled))) is None


def test_few_frames_and_single_atoms_say_nothing(water, tmp_path):
    few = {"z": water.numbers, "R": water.positions[:3], "F": water.forces[:3]}
    np.savez(tmp_path / "few.npz", E=water.energies[:3], **few)
    assert energy_work_ratio(read_labels(tmp_path / "few.npz")) is None
    atoms = {"z": [1], "R": np.zeros((9, 1, 3)), "F": np.ones((9, 1, 3))}
    np.savez(tmp_path / "atoms.npz", E=np.full(9, -13.6), **atoms)
    intake = read_labels(tmp_path / "atoms.npz", spin=1)
    assert energy_work_ratio(intake) is None
    assert intake.warnings == ()


def test_copies_of_one_frame_say_nothing(water, tmp_path):
    arrays = {"R": water.positions, "F": water.forces, "E": water.energies}
    same = {key: np.repeat(x[:1], 20, axis=0) for key, x in arrays.items()}
    np.savez(tmp_path / "same.npz", z=water.numbers, **same)
    assert energy_work_ratio(read_labels(tmp_path / "same.npz")) is None


def test_energies_relative_to_atoms_are_not_doubted(water, saved):
    relative = water.energies - water.energies.min() - 10.0
    assert read_labels(saved(E=relative)).warnings == ()


@needs(ETHANOL)
@pytest.mark.parametrize("name", ["cc", "dft2", "rmd17"])
def test_ethanol_in_its_own_units_raises_no_doubt(name):
    keys = {"energy_key": f"{name}_E", "energy_unit": "kcal/mol"}
    intake = read_labels(ETHANOL, **keys)
    assert intake.warnings == ()
    assert energy_work_ratio(intake) == pytest.approx(1, abs=0.06)


@needs(ETHANOL)
@pytest.mark.parametrize(
    ("units", "explanations"),
    [
        ({"energy_unit": "eV"}, ["typical force", "kcal/mol would explain it"]),
        ({"energy_unit": "hartree"}, ["typical force", "kcal/mol would explain it"]),
        ({"energy_unit": "kJ/mol"}, ["kcal/mol would explain it"]),
        (
            {"energy_unit": "kcal/mol", "force_unit": "eV/angstrom"},
            ["typical force", "forces in kcal/mol/angstrom would explain it"],
        ),
        (
            {"energy_unit": "kcal/mol", "force_unit": "kcal/mol/bohr"},
            ["forces in kcal/mol/angstrom would explain it"],
        ),
        (
            {"energy_unit": "kcal/mol", "length_unit": "bohr"},
            ["lengths in angstrom would explain it"],
        ),
    ],
)
def test_ethanol_in_wrong_units_is_found_out(units, explanations):
    warnings = read_labels(ETHANOL, energy_key="cc_E", **units).warnings
    assert len(warnings) == len(explanations)
    assert all(any(x in text for text in warnings) for x in explanations)


@needs(FORMALDEHYDE)
def test_formaldehyde_in_its_own_units_raises_no_doubt():
    intake = read_labels(FORMALDEHYDE)
    assert intake.warnings == ()
    assert energy_work_ratio(intake) == pytest.approx(1, abs=0.002)


@needs(FORMALDEHYDE)
@pytest.mark.parametrize(
    "units",
    [
        {"energy_unit": "hartree"},
        {"energy_unit": "kcal/mol"},
        {"force_unit": "hartree/bohr"},
        {"force_unit": "eV/bohr"},
        {"length_unit": "bohr"},
    ],
)
def test_formaldehyde_in_wrong_units_is_found_out(units):
    assert read_labels(FORMALDEHYDE, **units).warnings
