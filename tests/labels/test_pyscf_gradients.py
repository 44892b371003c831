"""Forces of every method against finite differences of its own energy.

The step is 1e-3 Å, so that the cubic error of a central difference is some 1e-5 eV/Å;
with a coarse quadrature grid the slope itself is rough to 1e-4 eV/Å.
"""

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import pyscf_level
from alloop.labels.pyscf.level import tighter_level

STEP = 1e-3  # Å
SMOOTH, ROUGH = 5e-5, 4e-4  # eV/Å

WATER = ([8, 1, 1], [[0, 0, 0.01], [0, 0.757, 0.587], [0.03, -0.757, 0.6]])
CATION = (*WATER, 1, 1)
HYDROXYL = ([8, 1], [[0, 0.01, 0], [0.03, 0, 0.98]], 0, 1)
HYDROXIDE = ([8, 1], [[0, 0.01, 0], [0.03, 0, 0.98]], -1, 0)
FLUORIDE = ([9, 1], [[0, 0.01, 0], [0.03, 0, 0.95]])
HYDRIDE = ([3, 1], [[0, 0.01, 0], [0.03, 0, 1.63]])
OXYGEN = ([8, 8], [[0, 0.01, 0], [0.03, 0, 1.24]], 0, 2)
STRETCHED = ([1, 1], [[0, 0.01, 0], [0.03, 0, 1.8]])
IODIDE = ([53, 1], [[0, 0.01, 0], [0.03, 0, 1.65]])


def made(numbers, positions, charge=0, spin=0) -> Frame:
    return Frame(np.array(numbers), np.array(positions, float), charge, spin)


def energy_and_forces(child: LabelChild, level: Level, frame: Frame) -> Label:
    label = child.labeller(level).label(frame)
    assert isinstance(label, Label), label
    return label


def assert_forces_are_the_slope(
    child: LabelChild, level: Level, frame: Frame, tolerance: float
) -> None:
    direction = np.random.default_rng(3).standard_normal((len(frame), 3))
    direction /= np.linalg.norm(direction)
    ahead, behind = (
        energy_and_forces(
            child,
            level,
            Frame(
                frame.numbers,
                frame.positions + side * STEP * direction,
                frame.charge,
                frame.spin,
            ),
        ).energy
        for side in (1, -1)
    )
    forces = energy_and_forces(child, level, frame).forces
    slope = -(ahead - behind) / (2 * STEP)
    assert (forces * direction).sum() == pytest.approx(slope, abs=tolerance)


FREE = {"reference": "unrestricted"}
EXACT = [
    (("hf", "6-31g", {"density_fit": True, "dispersion": "d4"}), CATION),
    (("hf", "sto-3g", {**FREE}), STRETCHED),
    (("hf", "def2-svp", {}), IODIDE),
    (("mp2", "6-31g", {}), HYDROXIDE),
    (("mp2", "6-31g", {"frozen_core": True}), CATION),
    (("mp2", "6-31g", {**FREE, "frozen_core": True}), FLUORIDE),
    (("ccsd", "6-31g", {"frozen_core": True}), HYDRIDE),
    (("ccsd(t)", "6-31g", {}), HYDRIDE),
    (("ccsd(t)", "sto-3g", {**FREE, "frozen_core": True}), FLUORIDE),
    (("ccsd", "sto-3g", {**FREE}), FLUORIDE),
    (("ccsd(t)", "sto-3g", {}), HYDROXYL),
]
ON_A_GRID = [
    (("svwn", "sto-3g", {"density_fit": True}), CATION),
    (("pbe-d4", "sto-3g", {}), HYDROXIDE),
    (("b3lyp-d3bj", "6-31g", {"density_fit": True}), HYDROXYL),
    (("tpss", "sto-3g", {"density_fit": True}), FLUORIDE),
    (("r2scan-d4", "6-31g", {}), HYDROXYL),
    (("m06-2x", "sto-3g", {}), HYDRIDE),
    (("cam-b3lyp", "6-31g", {"density_fit": True}), FLUORIDE),
    (("hse06", "sto-3g", {}), HYDRIDE),
    (("wb97x-d3bj", "6-31g", {"density_fit": True}), HYDROXYL),
    (("wb97m-d3bj", "sto-3g", {}), FLUORIDE),
    (("b97m-v", "sto-3g", {}), HYDROXYL),
    (("wb97x-v", "sto-3g", {"density_fit": True}), FLUORIDE),
    (("pbe", "sto-3g", {**FREE}), OXYGEN),
]
SLOW = [
    (("ccsd", "sto-3g", {}), OXYGEN),
    (("ccsd", "sto-3g", {**FREE}), STRETCHED),
    (("wb97m-v", "6-31g", {"density_fit": True}), CATION),
    (("wb97m-v", "6-31g", {}), WATER),
    (("b3lyp", "def2-svp", {"density_fit": True, "grid": 3}), WATER),
    (("r2scan-d3bj", "def2-svp", {"density_fit": True, "grid": 3}), CATION),
    (("wb97x-d3bj", "def2-svp", {"grid": 2}), OXYGEN),
    (("b3lyp-d4", "def2-svp", {"density_fit": True}), IODIDE),
    (("cf22d", "6-31g", {}), WATER),
    (("m06-l", "6-31g", {"density_fit": True}), HYDROXYL),
    (("b97m-d4", "6-31g", {}), HYDROXYL),
]


def title(case: tuple) -> str:
    (method, basis, more), molecule = case
    formula = "".join(f"{z}." for z in molecule[0])
    return f"{method}/{basis} {' '.join(map(str, more.values()))} of {formula}"


@pytest.mark.parametrize("case", EXACT, ids=title)
def test_without_a_grid_forces_are_the_slope_to_rounding(
    child: LabelChild, case: tuple
) -> None:
    (method, basis, more), molecule = case
    level = tighter_level(pyscf_level(method, basis, **more))
    assert_forces_are_the_slope(child, level, made(*molecule), SMOOTH)


@pytest.mark.parametrize("case", ON_A_GRID, ids=title)
def test_forces_of_functionals_follow_the_grid(child: LabelChild, case: tuple) -> None:
    (method, basis, more), molecule = case
    level = pyscf_level(method, basis, grid=0, **more)
    assert_forces_are_the_slope(child, level, made(*molecule), ROUGH)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=title)
def test_forces_of_costly_combinations_are_the_slope_too(
    child: LabelChild, case: tuple
) -> None:
    (method, basis, more), molecule = case
    level = pyscf_level(method, basis, **{"grid": 0, "conv_tol": 1e-11, **more})
    assert_forces_are_the_slope(child, level, made(*molecule), ROUGH)
