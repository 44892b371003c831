"""The units used everywhere inside (eV, Å, fs, K, amu, e), and all conversions to them.

The constants are ASE's (CODATA 2014), since frames are exchanged with ASE; PySCF's
hartree differs by 5e-9 relative.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from ase import units as _ase

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

HARTREE = float(_ase.Hartree)  # eV
BOHR = float(_ase.Bohr)  # Å
KCAL_PER_MOL = float(_ase.kcal / _ase.mol)  # eV
KJ_PER_MOL = float(_ase.kJ / _ase.mol)  # eV
BOLTZMANN = float(_ase.kB)  # eV/K
GIGAPASCAL = float(_ase.GPa)  # eV/Å³

FORCE_TO_ACCELERATION = float(_ase.fs**2)  # (eV/Å)/amu -> Å/fs²
KINETIC = 1.0 / FORCE_TO_ACCELERATION  # amu (Å/fs)² -> eV
ASE_VELOCITY = 1.0 / float(_ase.fs)  # Å/fs -> Å per ASE time unit

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
