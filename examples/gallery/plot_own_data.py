"""
Data of one's own to a model
============================

Labelled frames from any program become a model file with :func:`alloop.train`. Here
GFN2-xTB labels shaken methanol, as if the file had come from elsewhere.
"""

import tempfile
from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule

import alloop

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
frames = []
with alloop.calculator("gfn2-xtb") as xtb:
    for _ in range(160):
        atoms = molecule("CH3OH")
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)  # Å
        atoms.calc = xtb
        atoms.info["REF_energy"] = atoms.get_potential_energy()  # eV
        atoms.arrays["REF_forces"] = atoms.get_forces()  # eV/Å
        atoms.calc = None
        frames.append(atoms)
ase.io.write(folder / "train.xyz", frames[:120])
ase.io.write(folder / "test.xyz", frames[120:])

# %%
# The sections are those of a campaign file. Files must say their units. A training of
# 400 steps takes some seconds; the presets of ``alloop train`` take thousands.
units = {"energy_unit": "eV", "length_unit": "angstrom"}
trained = alloop.train(
    {
        "start": [{"labels": str(folder / "train.xyz"), "level": "expensive", **units}],
        "test": {"file": str(folder / "test.xyz"), **units},
        "potential": {"kind": "painn", "channels": 32, "layers": 2, "cutoff": 4.0},
        "training": {"kind": "standard", "steps": 400, "batch": 10, "lr": 5e-3},
    },
    folder / "methanol.model",
)

# %%
# The model file opens without the labels. Its calculator is compared with forces that
# it has not seen.
model = alloop.load(folder / "methanol.model")
known, predicted = [], []
for atoms in frames[120:]:
    atoms.calc = model.calculator()
    known.append(atoms.arrays["REF_forces"].ravel())
    predicted.append(atoms.get_forces().ravel())
known, predicted = np.concatenate(known), np.concatenate(predicted)
error = 1000 * np.abs(predicted - known).mean()
print(f"mean error of a force component: {error:.0f} meV/Å")

fig, ax = plt.subplots(figsize=(4, 4), layout="constrained")
ax.plot(known, known, color="0.7", linewidth=1)
ax.plot(known, predicted, ".", markersize=3)
ax.set(xlabel="force of GFN2-xTB, eV/Å", ylabel="force of the model, eV/Å")
ax.set_title(f"40 test frames, {error:.0f} meV/Å")
plt.show()
assert error < 0.2 * 1000 * np.abs(known).mean()
