"""Free energy of methanol's torsion at 300 K, by windows on a campaign's model.

alloop run campaigns/methanol.yaml
python examples/methanol_torsion.py runs/methanol.zarr --level ccsd/cc-pvdz
"""

import argparse

import numpy as np
from ase.units import kB, kcal, mol

import alloop
from alloop.core.levels import energy_level
from alloop.core.seeds import random_stream
from alloop.jobs.level_model import LevelPotential
from alloop.md import biases, collective_variables, free_energy, guards

KELVIN, KT, STIFF = 300.0, 300.0 * kB, np.full(24, 0.5)  # K, eV, eV/rad²
CENTRES = np.radians(np.arange(-180, 180, 15))  # minima at -180, -60 and 60°
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("store")
parser.add_argument("--level", help="label frames of the top and of the bottom")
parser.add_argument("--steps", type=int, default=10_000, help="of 0.5 fs")
options = parser.parse_args()
campaign = alloop.Campaign.from_store(options.store)
start, model = campaign.setup.start[0], campaign.model().potential
window = np.repeat(np.arange(24), 4)  # four walkers each
rngs = [random_stream(1, f"walker/{index}") for index in range(96)]
walkers = [alloop.Walker(index, 0, start, 0 * start.positions) for index in range(96)]
torsions = [collective_variables.rotatable_torsions(start)[:1]] * 96
batch = alloop.pack_frames([start] * 96)
variables = collective_variables.walker_variables(batch, torsions)
centres = CENTRES[window][:, None]
bias = biases.HarmonicWindows(variables, centres, STIFF[window][:, None])
calm, seen = guards.Guards(heat=None), []  # windows pull hard in the first ps
motion = alloop.DynamicsSettings(temperature=KELVIN, stride=50, guards=calm)
md = {"rngs": rngs, "biases": [bias]}
walkers = alloop.run_dynamics(walkers, model, motion, 2000, **md).walkers
md["observe"] = lambda scored: seen.append(scored.batch)
alloop.run_dynamics(walkers, model, motion, options.steps, **md)
angles = np.array([variables.evaluate(x.positions)[0][:, 0] for x in seen])
windows, edges = np.tile(window, len(seen)), np.linspace(-np.pi, np.pi, 73)
free = free_energy.window_free_energy(
    angles.ravel(), windows, CENTRES, STIFF, edges, temperature=KELVIN, period=2 * np.pi
)
thirds = -KT * np.log(np.exp(-free.reshape(3, 24) / KT).mean(0))
barrier = (thirds[11:13].mean() - thirds[[0, -1]].mean()) / (kcal / mol)
print(f"model: barrier {barrier:.3f} kcal/mol")
if options.level:
    level, shifts = LevelPotential(energy_level(alloop.level(options.level))), []
    off = np.angle(np.exp(1j * (angles - centres.T)))
    for places in ([4, 12, 20], [0, 8, 16]):  # windows at the top, at the bottom
        near = np.argwhere(np.isin(window, places) & (np.abs(off) < 0.15))
        near = random_stream(1, f"{places}").permutation(near)[:40]
        frames = alloop.pack_frames([seen[i].frame(j) for i, j in near])
        gaps = level.predict(frames).energies - model.predict(frames).energies
        weights = 0.5 * STIFF[0] * off[tuple(near.T)] ** 2 / KT
        shifts.append(free_energy.perturbation(gaps, weights, KELVIN))
    barrier += (shifts[0] - shifts[1]) / (kcal / mol)
    print(f"{options.level}: barrier {barrier:.3f} kcal/mol")
