"""The potential in OpenMM: parity with the ASE calculator, pickles, mixed systems."""

import pickle
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units

from alloop.core.errors import InputError
from alloop.engines.evaluator import BeyondLimitError, Watch
from tests.engines.conftest import Model

openmm = pytest.importorskip("openmm")
openmmml = pytest.importorskip("openmmml")
from openmm import app, unit  # noqa: E402

from alloop.engines.openmm_force import AlloopPotentialFactory  # noqa: E402

KJ = units.kJ / units.mol
openmmml.MLPotential.registerImplFactory("alloop", AlloopPotentialFactory())


def water_topology(count: int = 1) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(count):
        residue = topology.addResidue("HOH", chain)
        names = [("O", app.element.oxygen), ("H1", app.element.hydrogen)]
        names.append(("H2", app.element.hydrogen))
        atoms = [topology.addAtom(name, kind, residue) for name, kind in names]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    return topology


def context(system: Any, positions: np.ndarray) -> Any:
    integrator = openmm.VerletIntegrator(0.0005)
    platform = openmm.Platform.getPlatformByName("Reference")
    out = openmm.Context(system, integrator, platform)
    out.setPositions(positions * unit.angstrom)
    return out


def results(system: Any, positions: np.ndarray) -> tuple[float, np.ndarray]:
    state = context(system, positions).getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True)
    per_nm = forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energy * KJ, per_nm * KJ / 10.0


def expected(model: Model, atoms: Atoms) -> tuple[float, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = model.generation.calculator()
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.parametrize("name", ["ase", "alloop"])
def test_energies_and_forces_equal_the_calculators(
    water_model: Model, name: str
) -> None:
    if name == "ase":
        calculator = water_model.generation.calculator()
        potential = openmmml.MLPotential("ase")
        system = potential.createSystem(water_topology(), calculator=calculator)
    else:
        potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
        system = potential.createSystem(water_topology())
    energy, forces = results(system, water_model.atoms.positions)
    right, right_forces = expected(water_model, water_model.atoms)
    assert energy == pytest.approx(right, abs=1e-5)
    np.testing.assert_allclose(forces, right_forces, rtol=0, atol=1e-5)
    assert np.abs(forces).max() > 1e-3


def test_a_system_is_saved_and_loaded_with_the_model_in_it(
    water_model: Model,
) -> None:
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    system = potential.createSystem(water_topology())
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    before = results(system, water_model.atoms.positions)
    after = results(again, water_model.atoms.positions)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])


def test_what_the_model_was_not_trained_on_is_refused(water_model: Model) -> None:
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    system = potential.createSystem(water_topology(), charge=1, spin=1)
    with pytest.raises((InputError, openmm.OpenMMException), match="trained on"):
        results(system, water_model.atoms.positions)


def test_md_stops_at_a_frame_that_the_model_does_not_trust(water_model: Model) -> None:
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    system = potential.createSystem(water_topology(), watch=Watch(action="stop"))
    results(system, water_model.atoms.positions)
    with pytest.raises(
        (BeyondLimitError, openmm.OpenMMException), match="does not trust"
    ):
        results(system, water_model.far.positions)


def solvated() -> tuple[app.Topology, Any, np.ndarray]:
    """Two waters of TIP3P in a box; the first one lies across a face of it."""
    topology = water_topology(2)
    topology.setPeriodicBoxVectors(np.eye(3) * 2.0 * unit.nanometer)
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )
    return topology, system, np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]])


def test_one_molecule_of_a_box_is_the_models_and_the_box_is_not(
    water_model: Model,
) -> None:
    topology, system, shifts = solvated()
    water = water_model.atoms.positions
    positions = np.concatenate([water + shift for shift in shifts])
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    mixed = potential.createMixedSystem(topology, system, [0, 1, 2], forceGroup=3)
    right = expected(water_model, water_model.atoms)
    for image in (0.0, 20.0):
        positions[1, 2] += image  # an atom on the other side of the box
        state = context(mixed, positions).getState(
            getEnergy=True, getForces=True, groups={3}
        )
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        per_nm = state.getForces(asNumpy=True).value_in_unit(
            unit.kilojoule_per_mole / unit.nanometer
        )
        assert energy * KJ == pytest.approx(right[0], abs=1e-5)
        np.testing.assert_allclose(per_nm[:3] * KJ / 10, right[1], atol=1e-5)
        np.testing.assert_array_equal(per_nm[3:], 0.0)
    whole = context(mixed, positions).getState(getForces=True)
    others = whole.getForces(asNumpy=True)[3:]._value
    assert np.abs(others).max() > 1.0  # the molecule's charges act on its solvent


def test_the_force_pickles(water_model: Model) -> None:
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    system = potential.createSystem(water_topology())
    assert len(pickle.dumps(system.getForce(0))) > 1000


@pytest.mark.slow
def test_energy_is_conserved_as_with_ase(water_model: Model) -> None:
    from ase.md.verlet import VelocityVerlet

    atoms = water_model.atoms.copy()
    atoms.calc = water_model.generation.calculator()
    rng = np.random.default_rng(1)
    scale = np.sqrt(units.kB * 100.0 / atoms.get_masses())
    atoms.set_velocities(scale[:, None] * rng.standard_normal((3, 3)))
    velocities = atoms.get_velocities() / (units.Ang / (1000.0 * units.fs)) / 10.0
    potential = openmmml.MLPotential("alloop", modelPath=str(water_model.file))
    system = potential.createSystem(
        water_topology(), removeCMMotion=False, watch=Watch(action="ignore")
    )
    simulation = context(system, atoms.positions)
    # leapfrog's velocities are half a step behind; 0.25 fs from the start
    simulation.setVelocities(velocities)
    totals, steps, size = [], 40000, 0.25  # 10 ps
    simulation.getIntegrator().setStepSize(size * unit.femtosecond)
    for _ in range(40):
        state = simulation.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * KJ)
        simulation.getIntegrator().step(steps // 40)
    by_ase, dynamics = [], VelocityVerlet(atoms, size * units.fs)
    for _ in range(40):
        by_ase.append(atoms.get_total_energy())
        dynamics.run(steps // 40)
    drift = [abs(np.polyfit(np.arange(40), x, 1)[0]) * 40 for x in (totals, by_ase)]
    assert drift[0] <= drift[1] + 1e-3


def bent_water(model: Model) -> tuple[Any, Any]:
    """A system of the model, and its angle as a variable to bias."""
    potential = openmmml.MLPotential("alloop", modelPath=str(model.file))
    system = potential.createSystem(water_topology(), watch=Watch(action="ignore"))
    angle = openmm.CustomAngleForce("theta")
    angle.addAngle(1, 0, 2)
    return system, app.BiasVariable(angle, 1.0, 2.8, 0.1, False)


def simulated(model: Model, system: Any) -> Any:
    integrator = openmm.LangevinIntegrator(300.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(water_topology(), system, integrator, platform)
    simulation.context.setPositions(model.atoms.positions * unit.angstrom)
    return simulation


def test_metadynamics_of_openmm_moves_the_molecule(water_model: Model) -> None:
    system, variable = bent_water(water_model)
    metadynamics = app.Metadynamics(system, [variable], 300.0, 5.0, 1.0, 5)
    simulation = simulated(water_model, system)
    metadynamics.step(simulation, 20)
    hills = -metadynamics.getFreeEnergy()._value
    assert hills.max() > 0.5  # kJ/mol, of four hills
    (value,) = metadynamics.getCollectiveVariables(simulation)
    assert 1.0 < value < 2.8


def test_openmm_opes_moves_the_molecule(water_model: Model) -> None:
    opes = pytest.importorskip("openmm_opes")
    system, variable = bent_water(water_model)
    bias = opes.OPES(system, [variable], 300.0, 20.0, 5, None)
    simulation = simulated(water_model, system)
    bias.step(simulation, 20)
    assert bias.getNumKernels() >= 1
    (value,) = bias.getCollectiveVariables(simulation)
    assert 1.0 < value < 2.8
