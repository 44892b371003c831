"""Methanol by a campaign's model in a box of water by a force field, in OpenMM.

    alloop run campaigns/methanol.yaml
    alloop export runs/methanol.zarr --model methanol.model
    python examples/methanol_in_water.py methanol.model

Mechanical embedding in TIP3P water at 300 K. The table has the time of a step and how
far the model is to be trusted, for each ps.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator, Vec3, app, unit
from openmmml import MLPotential

from alloop.engines.evaluator import Watch

HERE = Path(__file__).parent

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model")
parser.add_argument("--picoseconds", type=int, default=10)
parser.add_argument("--box", type=float, default=2.2, help="edge, nm")
options = parser.parse_args()
methanol = app.PDBFile(str(HERE / "methanol.pdb"))
modeller = app.Modeller(methanol.topology, methanol.positions)
field = app.ForceField("amber14/tip3p.xml", str(HERE / "methanol_opls.xml"))
modeller.addSolvent(field, boxSize=Vec3(*[options.box] * 3) * unit.nanometer)
reach = {"nonbondedMethod": app.PME, "nonbondedCutoff": 1.0 * unit.nanometer}
trust = []
watch = Watch(action="write", file=Path("beyond.xyz"), callback=trust.append)
mixed = MLPotential("alloop", modelPath=options.model).createMixedSystem(
    modeller.topology,
    field.createSystem(modeller.topology, **reach),
    range(6),
    watch=watch,
)
step, kelvin = 0.5 * unit.femtosecond, 300.0 * unit.kelvin
integrator = LangevinMiddleIntegrator(kelvin, 1.0 / unit.picosecond, step)
simulation = app.Simulation(modeller.topology, mixed, integrator)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=200)
print(f"{mixed.getNumParticles()} atoms\n  ps  ms/step  surprise  highest  beyond")
steps = round(1.0 * unit.picosecond / step)
for picosecond in range(1, options.picoseconds + 1):
    trust.clear()
    began = time.perf_counter()
    simulation.step(steps)
    spent = (time.perf_counter() - began) / steps * 1e3
    surprise = np.concatenate([x.surprise for x in trust])
    beyond = np.concatenate([x.beyond for x in trust]).mean()
    figures = f"{spent:7.2f} {np.median(surprise):9.2f} {surprise.max():8.2f}"
    print(f"{picosecond:4d}  {figures} {beyond:7.1%}", flush=True)
