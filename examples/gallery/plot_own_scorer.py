"""
A scorer of one's own
=====================

A scorer turns predictions into surprise. This one takes the largest force, in
multiples of the largest in held-out frames. alloop's own, the leverage of
descriptors, is set beside it: which of them knows where the model errs?
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from scipy.stats import spearmanr

import alloop


@dataclass(frozen=True)
class LargestForce:
    """The largest force on an atom; both the recipe and what it makes."""

    usual: float = 1.0  # eV/Å

    def fit(self, potential, learned, heldout, retrain):
        """Return the scorer of a potential."""
        forces = potential.predict(heldout).forces  # (atoms, 3)
        return LargestForce(float(np.linalg.norm(forces, axis=1).max()))

    def score(self, batch, predictions):
        """Return the surprise (frames,)."""
        norms = np.linalg.norm(predictions.forces, axis=1)
        return np.maximum.reduceat(norms, batch.offsets[:-1]) / self.usual

    def arrays(self):
        """Return what is stored with a generation."""
        return {"usual": np.array([self.usual])}

    def restore(self, arrays, read_potential):
        """Return the scorer that gave these arrays."""
        return LargestForce(float(arrays["usual"][0]))


# %%
# The same campaign with each of them. The toy level replaces quantum chemistry.
folder = Path(tempfile.mkdtemp())
TEXT = """
name: {name}
seed: 1
start: [{{molecule: H2O}}]
validation: {{frames: 12, each: 4, spacing: 5, temperature: 400, examination: 0}}
levels: {{expensive: {{kind: toy}}}}
seeds: {{expensive: 12, temperature: 400}}
explore: {{walkers: 4, steps: 60, piece: 30, stride: 5, temperature: 400}}
potential: {{kind: pairwise}}
training: {{kind: standard, every: 6}}
budget: {{expensive: 18}}
cluster: {{kind: inline}}
limits: {{isolate: false}}
store: {name}.zarr
"""
models = {}
for name, scorer in {"leverage": None, "largest force": LargestForce()}.items():
    file = folder / f"{name.split()[0]}.yaml"
    file.write_text(TEXT.format(name=file.stem))
    campaign = alloop.Campaign.from_yaml(file, scorer=scorer)
    campaign.run()
    models[name] = campaign.model()

# %%
# Frames from cold to far too hot, and the model's true error on each.
rng = np.random.default_rng(0)
frames = []
for spread in np.linspace(0.01, 0.12, 120):
    atoms = molecule("H2O")
    atoms.positions += rng.normal(0.0, spread, atoms.positions.shape)  # Å
    frames.append(atoms)
batch = alloop.pack_frames([alloop.from_atoms(atoms) for atoms in frames])
forces = []
with alloop.calculator(campaign.setup.levels["expensive"]) as truth:
    for atoms in frames:
        atoms.calc = truth
        forces.append(atoms.get_forces())
forces = np.concatenate(forces)

fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
ranks = {}
for ax, (name, model) in zip(axes, models.items(), strict=True):
    off = np.linalg.norm(model.predict(batch).forces - forces, axis=1)
    errors = np.maximum.reduceat(off, batch.offsets[:-1])  # eV/Å
    surprise = model.surprise(batch)
    ranks[name] = spearmanr(surprise, errors).statistic
    ax.loglog(surprise, errors, ".")
    ax.axvline(model.threshold, color="0.5", linewidth=1)
    ax.set(xlabel=f"surprise: {name}", ylabel="largest force error, eV/Å")
    ax.set_title(f"rank correlation {ranks[name]:.2f}")
plt.show()
print({name: round(float(rank), 2) for name, rank in ranks.items()})
assert min(ranks.values()) > 0.2
