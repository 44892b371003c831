"""Milliseconds of an engine's step over those of the model's own call.

`python -m benchmarks.speed.engines MODEL START`: each engine that is installed runs the
same number of steps of constant energy from START (ASE reads it) with the model file.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import ase.io
import numpy as np
from ase.data import atomic_masses, atomic_numbers

from alloop.core.atoms import from_atoms
from alloop.engines.evaluator import Evaluator, Watch, repeated
from benchmarks.common import show

STEPS = 100


def seconds(run: Callable[[int], Any], repeats: int = 3) -> float:
    """Return the seconds of one step, the best of some runs after a first one."""
    run(20)
    times = []
    for _ in range(repeats):
        start = perf_counter()
        run(STEPS)
        times.append((perf_counter() - start) / STEPS)
    return min(times)


def by_call(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return the model's own calls."""
    frame = from_atoms(atoms)

    def run(steps: int) -> None:
        for _ in range(steps):
            evaluator.evaluate(repeated(frame, frame.positions[None]))

    return run


def by_ase(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return ASE's velocity Verlet with the calculator."""
    from ase.md.verlet import VelocityVerlet

    atoms.calc = evaluator.generation.calculator(outside=True)
    run: Callable[[int], Any] = VelocityVerlet(atoms, 0.05).run
    return run


def by_openmm(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return OpenMM's steps on its Reference platform."""
    import openmm

    context = openmm_context(evaluator, atoms, openmm.VerletIntegrator(0.0005))

    def run(steps: int) -> None:
        context.getIntegrator().step(steps)

    return run


def openmm_context(evaluator: Evaluator, atoms: ase.Atoms, integrator: Any) -> Any:
    """Return OpenMM's context of a molecule on its Reference platform."""
    import openmm

    from alloop.engines.openmm_force import python_force

    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(python_force(evaluator, atoms.numbers))
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(atoms.positions / 10.0)
    return context


def by_lammps(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return LAMMPS's steps."""
    _, fix = lammps_system(evaluator, atoms)
    fix.command("fix move all nve\ntimestep 0.0005")
    return lambda steps: fix.command(f"run {steps}")


def lammps_system(evaluator: Evaluator, atoms: ase.Atoms) -> tuple[Any, Any]:
    """Return LAMMPS with the atoms of a molecule, and its fix."""
    from lammps import lammps

    from alloop.engines.lammps_fix import LammpsFix

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    elements = sorted(set(atoms.get_chemical_symbols()))
    lmp.commands_string(
        "units metal\natom_style atomic\natom_modify map array sort 0 0\n"
        "boundary f f f\nregion box block -50 50 -50 50 -50 50\n"
        f"create_box {len(elements)} box\npair_style zero 5.0 nocoeff\n"
        "pair_coeff * *\nmass * 12.0\nthermo 1000000"
    )
    for number, element in enumerate(elements, start=1):
        mass = atomic_masses[atomic_numbers[element]]
        lmp.command(f"mass {number} {mass}")
    types = [elements.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    lmp.create_atoms(len(atoms), None, types, atoms.positions.ravel().tolist())
    return lmp, LammpsFix(lmp, evaluator, elements)


def by_ipi_driver(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return calls of i-PI's driver, without i-PI's own work."""
    from alloop.engines.ipi_driver import AlloopDriver

    folder = Path(tempfile.mkdtemp())
    ase.io.write(folder / "start.xyz", atoms)
    (folder / "model").write_bytes(evaluator.__reduce__()[1][0])
    driver = AlloopDriver(
        str(folder / "start.xyz"), str(folder / "model"), beyond="ignore", outside=True
    )
    positions = atoms.positions / 0.529177

    def run(steps: int) -> None:
        for _ in range(steps):
            driver(np.eye(3), positions)

    return run


def by_torchsim(evaluator: Evaluator, atoms: ase.Atoms) -> Callable[[int], Any]:
    """Return calls of TorchSim's model, without TorchSim's own work."""
    import torch_sim

    from alloop.engines.torchsim_model import AlloopModel

    model = AlloopModel(evaluator)
    state = torch_sim.initialize_state([atoms], model.device, model.dtype)

    def run(steps: int) -> None:
        for _ in range(steps):
            model(state)

    return run


def main() -> None:
    """Print a row for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("start")
    options = parser.parse_args()
    atoms = ase.io.read(options.start)
    watch = Watch(action="ignore")
    show(f"{len(atoms)} atoms, {STEPS} steps, load {os.getloadavg()[0]:.1f}")
    ways = (by_call, by_ase, by_openmm, by_lammps, by_ipi_driver, by_torchsim)
    for way in ways:
        evaluator = Evaluator.of_file(options.model, watch=watch, outside=True)
        try:
            time = 1000.0 * seconds(way(evaluator, atoms.copy()))
        except ImportError as error:
            show(f"{way.__name__:>14}: not installed ({error})")
            continue
        base = 1000.0 * seconds(by_call(evaluator, atoms))  # at the same load
        show(
            f"{way.__name__:>14}: {time:.3f} ms a step, {time - base:+.3f} ms over the "
            f"call, {time / base:.2f} times"
        )


if __name__ == "__main__":
    main()
