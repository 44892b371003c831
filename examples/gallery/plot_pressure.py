"""
A cell at constant pressure
===========================

Solid argon, a Lennard-Jones crystal of 32 atoms, pressed step by step. Its volume
fluctuates about that at which the inner pressure is the outer one.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.units import GPa

import alloop
from alloop.jobs.level_model import LevelPotential
from alloop.labels.direct import DirectLabeller
from alloop.labels.named_code import ase_level

argon = alloop.from_atoms(bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2))
level = ase_level(
    "ase.calculators.lj.LennardJones",
    {"epsilon": 0.0104, "sigma": 3.40, "rc": 7.0, "smooth": True},
)
potential = LevelPotential(level, labeller=DirectLabeller(level))

# %%
# A level of theory moves a walker as a trained model does. 1.6 ps for each pressure
# are enough to see the cell answer, and far too short for an equation of state.
TEMPERATURE, TIMESTEP, STEPS = 60.0, 4.0, 400  # K, fs
pressures = [0.0, 0.5, 1.0]  # GPa
volumes = {}  # Å³ per atom
for pressure in pressures:
    dynamics = alloop.DynamicsSettings(
        temperature=TEMPERATURE,
        timestep=TIMESTEP,
        barostat=alloop.Barostat(
            pressure=pressure * GPa, time=200.0, compressibility=0.4 / GPa
        ),
    )
    rng = np.random.default_rng(1)
    start = alloop.maxwell_boltzmann(argon, TEMPERATURE, rng)
    walkers = (alloop.Walker(0, 0, argon, start),)
    volumes[pressure] = []
    for piece in range(STEPS // 20):
        stream = [np.random.default_rng(piece)]
        moved = alloop.run_dynamics(walkers, potential, dynamics, 20, stream)
        walkers = moved.walkers
        cell = walkers[0].frame.cell
        volumes[pressure].append(abs(np.linalg.det(cell)) / len(argon))
    assert walkers[0].stopped is None

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
times = 20 * TIMESTEP / 1000 * np.arange(1, STEPS // 20 + 1)  # ps
for pressure, volume in volumes.items():
    ax.plot(times, volume, label=f"{pressure:g} GPa")
ax.set(xlabel="time, ps", ylabel="volume of an atom, Å³")
ax.legend()
plt.show()
means = [np.mean(volumes[p][len(times) // 2 :]) for p in pressures]
print([round(float(mean), 1) for mean in means], "Å³ per atom")
assert means[0] > means[1] > means[2]
