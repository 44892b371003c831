"""
A campaign read in Python
=========================

A whole campaign on a toy level, which takes seconds, and what its store holds.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import alloop
from alloop.loop.events import Trained

folder = Path(tempfile.mkdtemp())
file = folder / "water.yaml"
file.write_text("""
name: water
seed: 3
start: [{molecule: H2O}]
validation: {frames: 12, each: 3, spacing: 5, examination: 8, examination_spacing: 60}
levels: {cheap: {kind: toy, stiffness: 0.95, stretch: 0.01}, expensive: {kind: toy}}
seeds: {cheap: 24, expensive: 6, temperature: 400}
explore: {walkers: 4, batch: 4, steps: 60, piece: 30, stride: 5, temperature: 400}
potential: {kind: pairwise}
training: {every: 6}
budget: {cheap: 60, expensive: 24}
cluster: {kind: inline}
limits: {isolate: false}
store: water.zarr
""")
campaign = alloop.Campaign.from_yaml(file)
print(campaign.run().finished)  # a second call continues, or returns at once

# %%
# The journal holds every event. `Trained` has the errors of a generation on the
# validation frames, which none learns from.
history = campaign.history()
trained = [event for _, event in history.of_kind(Trained)]
errors = [1000 * event.evaluation.force_mae for event in trained]
for event, error in zip(trained, errors, strict=True):
    print(f"generation {event.generation}: {error:.2f} meV/Å")

# %%
# The dataset is a list of ``ase.Atoms`` with energies and forces of their level.
frames = campaign.dataset("expensive", split="all")
lengths = np.array([atoms.get_distances(0, [1, 2]) for atoms in frames])
print(len(frames), "expensive labels, the first of", frames[0].info["split"])

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot([event.generation for event in trained], errors, "o-")
left.set(xlabel="generation", ylabel="force error, meV/Å", ylim=(0, None))
right.hist(lengths.ravel(), bins=20)
right.set(xlabel="O-H distance of labelled frames, Å", ylabel="bonds")
plt.show()
assert errors[-1] < 100.0
