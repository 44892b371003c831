"""
A shift, diagnosed and refined
==============================

A model that was trained on one molecule is asked about another one. By what do the
frames differ, and what can be done about it without expensive labels? GFN1-xTB is the
cheap level here, GFN2-xTB the expensive one.
"""

import tempfile
from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import molecule

import alloop
from alloop.core.records import LabelSet
from alloop.jobs.refine_job import refine_at_test_time
from alloop.refine.test_time import TestTimeLabels, TestTimeSettings

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)


def shaken(name: str, count: int) -> list[Atoms]:
    """Return a molecule at shaken positions."""
    frames = [molecule(name) for _ in range(count)]
    for atoms in frames:
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)  # Å
    return frames


def labelled(frames: list[Atoms], level: str) -> LabelSet:
    """Return frames with the energies and forces of a level."""
    energies, forces = [], []
    with alloop.calculator(level) as calculator:
        for atoms in frames:
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            atoms.calc = None
    return LabelSet.of([alloop.from_atoms(x) for x in frames], energies, forces)


def write(name: str, frames: list[Atoms], labels: LabelSet) -> str:
    """Write labels as a file, and return its path."""
    sizes = np.cumsum(labels.batch.sizes)[:-1]
    rows = zip(frames, labels.energies, np.split(labels.forces, sizes), strict=True)
    for atoms, energy, forces in rows:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
    ase.io.write(folder / name, frames)
    return str(folder / name)


methanol, held = shaken("CH3OH", 120), shaken("CH3OH", 20)
cheap, expensive = labelled(methanol, "gfn1-xtb"), labelled(methanol[:30], "gfn2-xtb")

# %%
# A network with two heads on one representation: all of it learns the cheap level,
# then a copy of the head learns the expensive one. 600 and 100 steps instead of
# thousands.
units = {"energy_unit": "eV", "length_unit": "angstrom"}
model = alloop.train(
    {
        "start": [
            {"labels": write("cheap.xyz", methanol, cheap), "level": "cheap", **units},
            {
                "labels": write("dear.xyz", methanol[:30], expensive),
                "level": "expensive",
                **units,
            },
        ],
        "potential": {"kind": "painn", "channels": 32, "layers": 2, "cutoff": 4.0},
        "training": {"kind": "two-heads", "pretrain": 600, "finetune": 100},
    },
    folder / "methanol.model",
).generation

# %%
# :func:`alloop.diagnose` compares frames with those of the training: by the
# descriptors of their atoms, by forces, and by the graph of atoms closer than the
# network's cutoff.
ethanol = shaken("CH3CH2OH", 40)
truth = labelled(ethanol, "gfn2-xtb")  # to judge, never learned from
write("ethanol.xyz", ethanol, truth)
known = alloop.file_frames([str(folder / "cheap.xyz")])
new = alloop.file_frames([str(folder / "ethanol.xyz")])
diagnosis = alloop.diagnose(model.potential, known, new)
for shift, deviations in diagnosis.shifts.deviations.items():
    out = np.mean(diagnosis.shifts.out[shift])
    print(f"{shift:13s} {np.median(deviations):7.1f} σ, out: {out:.0%}")

# %%
# Test-time training: cheap labels of the new frames move the representation that both
# heads read. It is kept where held-out expensive labels do not get worse.
labels = TestTimeLabels(
    cheap=labelled(ethanol, "gfn1-xtb"),
    held_out=labelled(held, "gfn2-xtb"),
    replay=cheap,
    expensive=expensive,
)
refined = refine_at_test_time(model, labels, TestTimeSettings(steps=300)).generation


def force_error(potential: object) -> float:
    """Return the mean error of a force component on ethanol, meV/Å."""
    predicted = potential.predict(truth.batch).forces
    return 1000 * float(np.abs(predicted - truth.forces).mean())


before = force_error(model.potential)
after = before if refined is None else force_error(refined.potential)
print(f"force error on ethanol: before {before:.0f} meV/Å, after {after:.0f} meV/Å")

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
shifts = list(diagnosis.shifts.deviations)
left.boxplot([diagnosis.shifts.deviations[x] for x in shifts], tick_labels=shifts)
left.set(ylabel="standard deviations from the training", yscale="symlog")
right.bar(["before", "after"], [before, after], width=0.6)
right.set(ylabel="force error on ethanol, meV/Å")
plt.show()
assert diagnosis.shifts.outside.all()
assert after <= before
