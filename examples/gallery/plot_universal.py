"""
Fine-tuning a universal potential
=================================

SO3LR knows molecules of eight elements at the level PBE0 with many-body dispersion. A
few labels move it to another level: here 15 of GFN2-xTB, for methanol, and 60 steps
where 400 are usual. Needs ``pip install 'alloop[so3lr]'``.
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
    for _ in range(25):
        atoms = molecule("CH3OH")
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        atoms.calc = xtb
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
ase.io.write(folder / "train.xyz", frames[:15])
ase.io.write(folder / "test.xyz", frames[15:])

units = {"energy_unit": "eV", "length_unit": "angstrom"}
trained = alloop.train(
    {
        "start": [{"labels": str(folder / "train.xyz"), "level": "expensive", **units}],
        "test": {"file": str(folder / "test.xyz"), **units},
        "potential": {"kind": "so3lr"},
        "training": {"kind": "standard", "steps": 60, "batch": 5},
    },
    folder / "methanol.model",
)

# %%
# How far off was it as it comes, and how far off is it now?


def force_error(calculator: object) -> float:
    """Return the mean error of a force component on the test frames, meV/Å."""
    off = []
    for atoms in frames[15:]:
        atoms.calc = calculator
        off.append(np.abs(atoms.get_forces() - atoms.arrays["REF_forces"]))
    return 1000 * float(np.mean(off))


with alloop.calculator("so3lr") as universal:
    before = force_error(universal)
after = force_error(alloop.load(folder / "methanol.model").calculator())
print(f"as it comes {before:.0f} meV/Å, fine-tuned {after:.0f} meV/Å")

fig, ax = plt.subplots(figsize=(4, 3), layout="constrained")
ax.bar(["as it comes", "fine-tuned"], [before, after], width=0.6)
ax.set(ylabel="force error against GFN2-xTB, meV/Å")
plt.show()
assert after < before
