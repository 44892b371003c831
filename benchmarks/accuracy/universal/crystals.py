"""Crystals that a universal potential is fine-tuned on, and others that it may forget.

Frames are cells that were strained by up to 2 % and whose atoms were moved by 0.1 Å.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.potentials.labeller_potential import LabellerPotential

LEVEL = "gfn1-xtb"  # at the gamma point: a level, not the crystal
_MOVED, _STRAINED = 0.1, 0.02  # Å, and of the cell
_SALT = {"NaCl": ("rocksalt", 5.7)}
_REPLAYED: Mapping[str, tuple[str, float]] = {
    **{"MgO": ("rocksalt", 4.25), "LiF": ("rocksalt", 4.08), "KCl": ("rocksalt", 6.36)},
    **{"CaO": ("rocksalt", 4.84), "GaAs": ("zincblende", 5.75)},
    **{"SiC": ("zincblende", 4.38), "ZnS": ("zincblende", 5.45)},
    **{"Si": ("diamond", 5.47), "Ge": ("diamond", 5.76), "C": ("diamond", 3.57)},
    **{"CaF2": ("fluorite", 5.5), "CsCl": ("cesiumchloride", 4.2)},
    **{"Al": ("fcc", 4.04), "Cu": ("fcc", 3.63), "Fe": ("bcc", 2.83)},
    "SrTiO3": ("perovskite", 3.94),
}
_JUDGED: Mapping[str, tuple[str, float]] = {  # none of which is replayed
    **{"MgS": ("rocksalt", 5.23), "KF": ("rocksalt", 5.42), "NaBr": ("rocksalt", 6.04)},
    **{"GaN": ("zincblende", 4.55), "AlP": ("zincblende", 5.5)},
    **{"SrF2": ("fluorite", 5.87), "CsBr": ("cesiumchloride", 4.4)},
    **{"Ni": ("fcc", 3.52), "BaTiO3": ("perovskite", 4.03)},
}


def salt_labels(count: int, name: str) -> LabelSet:
    """Return labelled frames of rock salt; `name` draws them."""
    batch = pack_frames(_frames(_SALT, count, name))
    said = LabellerPotential(DirectLabeller(level_from_name(LEVEL))).predict(batch)
    return LabelSet(batch, said.energies, said.forces, said.stress)


def replayed_crystals(each: int = 10) -> Batch:
    """Return frames of 16 crystals to replay."""
    return pack_frames(_frames(_REPLAYED, each, "crystals/replayed"))


def judged_crystals(each: int = 4) -> Batch:
    """Return frames of 9 other crystals, which forgetting is judged on."""
    return pack_frames(_frames(_JUDGED, each, "crystals/judged"))


def _frames(
    crystals: Mapping[str, tuple[str, float]], each: int, name: str
) -> Sequence[Frame]:
    random = random_stream(0, name)
    frames = []
    for formula, (structure, length) in crystals.items():
        for _ in range(each):
            atoms = _cell(formula, structure, length)
            strain = np.eye(3) + random.uniform(-_STRAINED, _STRAINED, (3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            atoms.positions += random.normal(0.0, _MOVED, atoms.positions.shape)
            frames.append(from_atoms(atoms, 0, 0))
    return frames


def _cell(formula: str, structure: str, length: float) -> Atoms:
    if structure == "perovskite":
        metals = [formula[:2], formula[2:4], "O"]
        places = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)]
        cell = [length] * 3 + [90] * 3
        return crystal(metals, places, spacegroup=221, cellpar=cell)
    return bulk(formula, structure, length, cubic=True)
