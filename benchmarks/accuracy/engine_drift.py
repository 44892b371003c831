"""Conservation of energy over MD on one model in each engine.

    python -m benchmarks.accuracy.engine_drift MODEL START [--picoseconds 10]
        [--quick] [--json FILE]

Each engine that is installed moves the structure START (ASE reads it) at constant
energy from the same thermal velocities (300 K) with steps of 0.5 fs. drift: slope of
the total energy, meV an atom and ps; spread: its standard deviation about the line,
meV an atom; potential and kinetic energies are the engine's own.
"""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from alloop.core.units import Floats
from alloop.engines.evaluator import Evaluator, Watch
from benchmarks.common import Row, make_parser, make_table, show, write_json

STEP = 0.5  # fs
STRIDE = 20  # steps between two energies
Engine = Callable[[Evaluator, Atoms, int], Floats]  # total energies, eV


def by_ase(evaluator: Evaluator, atoms: Atoms, steps: int) -> Floats:
    """Return the energies of ASE's velocity Verlet."""
    from ase.md.verlet import VelocityVerlet

    atoms.calc = evaluator.generation.calculator(outside=True)
    energies: list[float] = []
    md = VelocityVerlet(atoms, STEP * units.fs)
    md.attach(lambda: energies.append(atoms.get_total_energy()), interval=STRIDE)
    md.run(steps)
    return np.array(energies)


def by_openmm(evaluator: Evaluator, atoms: Atoms, steps: int) -> Floats:
    """Return the energies of OpenMM's velocity Verlet on its Reference platform."""
    import openmm
    from openmm import unit

    from benchmarks.speed.engines import openmm_context

    # Velocities at the times of positions; VerletIntegrator's are half a step behind.
    integrator = openmm.CustomIntegrator(STEP / 1000)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v + 0.5 * dt * f / m")
    integrator.addComputePerDof("x", "x + dt * v")
    integrator.addComputePerDof("v", "v + 0.5 * dt * f / m")
    context = openmm_context(evaluator, atoms, integrator)
    context.setVelocities(atoms.get_velocities() * units.fs * 100.0)  # nm/ps
    energies = []
    for _ in range(steps // STRIDE):
        integrator.step(STRIDE)
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole))
    out: Floats = np.array(energies) * units.kJ / units.mol
    return out


def by_lammps(evaluator: Evaluator, atoms: Atoms, steps: int) -> Floats:
    """Return the energies of LAMMPS's fix nve."""
    from benchmarks.speed.engines import lammps_system

    lmp, fix = lammps_system(evaluator, atoms)
    velocities = atoms.get_velocities() * units.fs * 1000.0  # Å/ps
    lmp.scatter_atoms("v", 1, 3, np.ctypeslib.as_ctypes(velocities.ravel()))
    fix.command(f"fix move all nve\ntimestep {STEP / 1000}\nthermo_modify norm no")
    energies = []
    for _ in range(steps // STRIDE):
        fix.command(f"run {STRIDE}")
        energies.append(lmp.get_thermo("etotal"))
    return np.array(energies)


def by_torchsim(evaluator: Evaluator, atoms: Atoms, steps: int) -> Floats:
    """Return the energies of TorchSim's velocity Verlet."""
    import torch
    import torch_sim as ts

    from alloop.engines.torchsim_model import AlloopModel

    model = AlloopModel(evaluator)
    timestep = torch.tensor(STEP * units.fs, dtype=torch.float64)
    start, move = ts.nve(model, dt=timestep, kT=torch.tensor(0.01))
    state = start(ts.initialize_state([atoms], model.device, model.dtype))
    state.momenta = torch.tensor(atoms.get_momenta())
    energies = []
    for step in range(steps):
        state = move(state)
        if step % STRIDE == STRIDE - 1:
            kinetic = ts.calc_kinetic_energy(masses=state.masses, momenta=state.momenta)
            energies.append(float(state.energy) + float(kinetic))
    return np.array(energies)


def conserved(name: str, energies: Floats, atoms: int) -> Row:
    """Return drift and spread of the energies."""
    times = np.arange(len(energies)) * STRIDE * STEP / 1000.0
    slope, start = np.polyfit(times, energies, 1)
    spread = np.std(energies - slope * times - start)
    per_atom = 1000.0 / atoms
    return {
        "engine": name,
        "drift, meV/atom/ps": slope * per_atom,
        "spread, meV/atom": spread * per_atom,
    }


def make_rows(options: Namespace) -> list[Row]:
    """Return a row for each engine that is installed."""
    atoms, rows = ase.io.read(options.start), []
    steps = round(1000.0 * options.picoseconds / STEP)
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(1))
    Stationary(atoms)
    engines: dict[str, Engine] = {
        "ASE": by_ase,
        "OpenMM": by_openmm,
        "LAMMPS": by_lammps,
        "TorchSim": by_torchsim,
    }
    for name, engine in engines.items():
        watch = Watch(action="ignore")
        evaluator = Evaluator.of_file(options.model, watch=watch, outside=True)
        try:
            energies = engine(evaluator, atoms.copy(), steps)
        except ImportError as error:
            show(f"{name}: not installed ({error})")
            continue
        rows.append(conserved(name, energies, len(atoms)))
    return rows


def main() -> None:
    """Show the table."""
    parser = make_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("--picoseconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.quick:
        options.picoseconds = min(options.picoseconds, 0.5)
    rows = make_rows(options)
    show(make_table(f"{options.picoseconds:g} ps at constant energy", rows))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
