"""Cells with k-points: forces and stress against finite differences, and refusals."""

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import check_level, pyscf_level
from alloop.labels.pyscf.label import label_with_pyscf
from alloop.labels.result import Result

# So coarse a plane-wave grid that forces do not add up to zero, yet are the slope.
COARSE = {"kpoints": [2, 1, 1], "ke_cutoff": 15.0}
STEP = 2e-3  # Å, and the strain
CELL = np.array([[2.6, 0, 0], [0.2, 2.7, 0], [0, 0.1, 3.0]])
POSITIONS = np.array([[0, 0, 0.02], [0.1, 0, 0.79]])


def hydrogen(strain: np.ndarray | None = None, shift=0.0, **more: object) -> Frame:
    turn = np.eye(3) if strain is None else np.eye(3) + strain
    cell = {"cell": CELL @ turn.T, "pbc": (True, True, True), **more}
    return Frame(np.array([1, 1]), (POSITIONS + shift) @ turn.T, **cell)


def made(level: Level, frame: Frame) -> Result:
    return label_with_pyscf(frame, level.settings)


@pytest.mark.parametrize(("method", "spin"), [("pbe", 0), ("svwn", 2)])
def test_forces_of_a_cell_are_minus_the_slope_of_its_energy(
    method: str, spin: int
) -> None:
    level = pyscf_level(method, "gth-szv", **COARSE)
    direction = np.array([[0.0, 0, 0], [0.3, 0.5, 0.8]])
    ahead, behind = (
        made(level, hydrogen(shift=side * STEP * direction, spin=spin)).energy
        for side in (1, -1)
    )
    forces = made(level, hydrogen(spin=spin)).forces
    slope = -(ahead - behind) / (2 * STEP)
    assert (forces * direction).sum() == pytest.approx(slope, rel=2e-4)


@pytest.mark.parametrize(("place", "i", "j"), [(0, 0, 0), (2, 2, 2), (3, 1, 2)])
def test_the_stress_is_the_slope_over_strain_and_volume(
    place: int, i: int, j: int
) -> None:
    level = pyscf_level("pbe", "gth-szv", **COARSE)
    strain = np.zeros((3, 3))
    strain[i, j] += STEP / 2
    strain[j, i] += STEP / 2
    ahead, behind = (made(level, hydrogen(side * strain)).energy for side in (1, -1))
    slope = (ahead - behind) / (2 * STEP) / np.linalg.det(CELL)  # eV/Å³
    stress = made(level, hydrogen()).stress
    assert stress[place] == pytest.approx(slope, abs=3e-5)


def test_a_cell_with_a_fine_grid_passes_the_gate(child: LabelChild) -> None:
    level = pyscf_level("svwn", "gth-szv", kpoints=[2, 1, 1])
    label = child.labeller(level).label(hydrogen())
    assert isinstance(label, Label), label
    assert np.abs(label.forces.sum(axis=0)).max() < 1e-3
    assert label.details["rung"] == "default"
    assert level.title == "SVWN/gth-SZV (2×1×1 k-points)"


def test_frames_that_are_no_neutral_cells_are_refused(child: LabelChild) -> None:
    level = pyscf_level("pbe", "gth-szv", **COARSE)
    molecule = Frame(np.array([1, 1]), POSITIONS)
    slab = Frame(np.array([1, 1]), POSITIONS, cell=CELL, pbc=(True, True, False))
    charged = hydrogen(charge=1, spin=1)
    for frame, words in [
        (molecule, "periodic in x, y and z"),
        (slab, "periodic in x, y and z"),
        (charged, "charge 0"),
    ]:
        outcome = child.labeller(level).label(frame)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.UNSUPPORTED
        assert words in outcome.message


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("pbe", {"kpoints": [1, 1, 1]}, "gamma point"),
        ("pbe", {"kpoints": [2, 1]}, "three numbers"),
        ("r2scan", {}, "meta-GGA"),
        ("pbe0", {}, "hybrids"),
        ("wb97x-v", {}, "VV10"),
        ("hf", {}, "no stress"),
        ("mp2", {}, "no stress"),
        ("pbe", {"density_fit": True}, "density_fit"),
        ("pbe-d3bj", {}, "dispersion"),
        ("pbe", {"pseudo": "gth-pb"}, "did you mean 'gth-pbe'"),
        ("pbe", {"ladder": ["second order"]}, "level shift"),
    ],
)
def test_what_cannot_be_differentiated_is_refused_in_one_sentence(
    child: LabelChild, method: str, more: dict, words: str
) -> None:
    level = pyscf_level(method, "gth-szv", **{**COARSE, **more})
    problems = check_level(level, ["H"], child.labeller(level))
    assert len(problems) == 1, problems
    assert words in problems[0]


def test_a_sound_level_for_cells_has_no_problems(child: LabelChild) -> None:
    level = pyscf_level("pbe", "gth-szv", kpoints=[2, 2, 2])
    assert check_level(level, ["H", "O"], child.labeller(level)) == []
