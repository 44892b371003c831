"""
A level of one's own
====================

A level of theory may be any function of a frame and its settings that returns energy
and forces. Its module must be importable where labels are made; ``springs.py`` lies
beside this example:

.. literalinclude:: ../../examples/gallery/springs.py
   :language: python
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import alloop

folder = Path(tempfile.mkdtemp())
file = folder / "springs.yaml"
file.write_text("""
name: springs
start: [{molecule: H2O}]
validation: {frames: 6, temperature: 300, examination: 6}
levels:
  cheap: {kind: "springs:springs", settings: {stiffness: 40.0}}
  expensive: {kind: "springs:springs", settings: {stiffness: 45.0}}
seeds: {cheap: 20, expensive: 6, temperature: 300}
explore: {walkers: 2, steps: 40, piece: 20, temperature: 300}
potential: {kind: pairwise}
training: {every: 6}
budget: {cheap: 30, expensive: 12}
cluster: {kind: inline}
limits: {isolate: false}
store: springs.zarr
""")
campaign = alloop.Campaign.from_yaml(file)
print(campaign.run().finished)

# %%
# The force field against the springs, along the stretching of one bond. The dots are
# bonds of labelled frames: where there are none, the model is alone.
atoms = campaign.dataset("expensive")[0].copy()
lengths = np.linspace(0.8, 1.3, 26)  # Å
energies = {"model": [], "springs": []}
with alloop.calculator(campaign.setup.levels["expensive"]) as truth:
    for length in lengths:
        atoms.set_distance(0, 1, length, fix=0)
        for name, calculator in {
            "model": campaign.calculator(),
            "springs": truth,
        }.items():
            atoms.calc = calculator
            energies[name].append(atoms.get_potential_energy())
labelled = np.concatenate(
    [x.get_distances(0, [1, 2]) for x in campaign.dataset("expensive")]
)

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, values in energies.items():
    ax.plot(lengths, values, label=name)
ax.plot(labelled, np.zeros_like(labelled), "k.", markersize=3)
ax.set(xlabel="O-H distance, Å", ylabel="energy, eV", ylim=(-0.2, 2.5))
ax.legend()
plt.show()
near = (lengths > labelled.min()) & (lengths < labelled.max())
off = np.abs(np.subtract(energies["model"], energies["springs"]))[near].max()
print(
    f"within the labelled distances the energy is off by {1000 * off:.0f} meV at most"
)
assert off < 0.2
