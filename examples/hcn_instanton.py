"""Ring-polymer instanton of HCN to HNC in i-PI, on a campaign's model.

    alloop run campaigns/hcn.yaml
    alloop export runs/hcn.zarr --model hcn.model
    python examples/hcn_instanton.py hcn.model --temperature 200     # alloop[ipi]

Prints the beads of half the ring with their energies above HCN: below the crossover
temperature they leave the saddle, whose energy the highest one does not reach.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase import io
from ipi.utils.units import unit_to_user

import alloop
from alloop.core.atoms import to_atoms
from alloop.core.units import BOHR, HARTREE
from alloop.engines import ipi_driver
from alloop.md.reaction_path import PathSettings, find_path, stationary_point
from alloop.md.thermal_frames import numerical_hessian

CAMPAIGNS = Path(__file__).parents[1] / "campaigns"
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", type=Path)
parser.add_argument("--temperature", type=float, default=200.0, help="K")
parser.add_argument("--beads", type=int, default=20, help="of half the ring")
options = parser.parse_args()
model = alloop.load(options.model).potential
ends = [alloop.from_atoms(io.read(CAMPAIGNS / f"{x}.xyz")) for x in ("hcn", "hnc")]
path = find_path(*ends, model, PathSettings(images=7))
saddle, modes = stationary_point(path.batch.frame(path.top), model)
low, top = model.predict(alloop.pack_frames([path.batch.frame(0), saddle])).energies
folder = Path(tempfile.mkdtemp())
atoms = to_atoms(saddle)
atoms.cell = 50.0 * np.eye(3)  # i-PI wants one
io.write(folder / "saddle.xyz", atoms, format="extxyz")
hessian = numerical_hessian(saddle, model) * BOHR**2 / HARTREE
np.savetxt(folder / "hessian.dat", hessian.reshape(1, -1))
text = Path(__file__).with_name("hcn_instanton.xml").read_text()
words = {"DRIVER": ipi_driver.__file__, "MODEL": options.model.absolute()}
words |= {"BEADS": options.beads, "KELVIN": options.temperature}
for word, value in words.items():
    text = text.replace(word, str(value))
(folder / "input.xml").write_text(text)
program = Path(sys.executable).with_name("i-pi")
with (folder / "log").open("w") as log:
    subprocess.run([program, "input.xml"], cwd=folder, stdout=log, check=True)
print(f"saddle {top - low:.4f} eV, {-modes.wavenumbers[0]:.0f}i cm⁻¹; bead, eV:")
scale = HARTREE / unit_to_user("energy", "electronvolt", 1.0)  # i-PI's is newer
(final,) = folder.glob("*FINAL*.ener")
for bead, energy in np.loadtxt(final):
    print(f"{int(bead):4d} {energy * scale - low:8.4f}")
