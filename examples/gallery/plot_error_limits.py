"""
A model in ASE, with limits of its errors
=========================================

A model's calculator tells, beside energy and forces, its surprise and an upper limit
of the error: the largest error of a force on an atom is below it in a promised share
of frames.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.md.langevin import Langevin

import alloop

folder = Path(tempfile.mkdtemp())
file = folder / "water.yaml"
file.write_text("""
name: water
seed: 1
start: [{molecule: H2O}]
validation: {frames: 60, each: 10, spacing: 5, temperature: 800, examination: 0}
levels: {expensive: {kind: toy}}
seeds: {expensive: 20, temperature: 500}
explore: {walkers: 4, steps: 60, piece: 30, stride: 5, temperature: 800}
potential: {kind: pairwise}
training: {kind: standard, every: 6}
flag: {kind: leverage, coverage: 0.9}
budget: {expensive: 32}
cluster: {kind: inline}
limits: {isolate: false}
store: water.zarr
""")
campaign = alloop.Campaign.from_yaml(file)
print(campaign.run().finished)

# %%
# MD at the temperature of the validation frames. At each tenth step the model's limit
# is kept, and its true error, since the toy level costs nothing.
atoms = campaign.dataset("expensive")[0].copy()
atoms.calc = campaign.calculator()
limits, errors = [], []
md = Langevin(
    atoms,
    0.5 * units.fs,
    temperature_K=800,
    friction=0.02 / units.fs,
    fixcm=False,
    rng=np.random.default_rng(2),
)
with alloop.calculator(campaign.setup.levels["expensive"]) as truth:

    def look() -> None:
        """Keep the limit of the present frame, and its error."""
        forces = atoms.get_forces(apply_constraint=False)
        limits.append(atoms.calc.results["error_limit"])
        copy = atoms.copy()
        copy.calc = truth
        errors.append(np.linalg.norm(forces - copy.get_forces(), axis=1).max())

    md.attach(look, interval=10)
    md.run(1500)

# %%
# The promise of 90 % is for frames such as the validation frames. An infinite limit
# means that nothing like a frame was ever checked.
limits, errors = np.array(limits), np.array(errors)
kept = np.mean(errors <= limits)
print(f"{kept:.0%} of {len(errors)} frames are within their limits")
print(f"{np.isinf(limits).sum()} have none")

finite = np.isfinite(limits)
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
ax.loglog(limits[finite], errors[finite], ".")
span = [limits[finite].min(), limits[finite].max()]
ax.loglog(span, span, color="0.5", linewidth=1)
ax.set(xlabel="limit told by the model, eV/Å", ylabel="largest true force error, eV/Å")
plt.show()
assert kept > 0.8
