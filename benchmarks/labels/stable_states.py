"""Stable SCF solutions by plain PySCF, an independent route to the lowest state."""

from contextlib import suppress
from typing import Any

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.units import HARTREE

GUESSES = ("minao", "atom", "huckel", "1e")
SAME = 1e-3  # eV: energies this close are of one state


def lowest_energy(frame: Frame, level: Level) -> float | None:
    """Return the lowest energy in eV of several stable solutions, None without any."""
    from pyscf import lib

    lib.num_threads(1)
    energies = []
    for guess in GUESSES:
        with suppress(np.linalg.LinAlgError):
            mf = mean_field(frame, level.settings)
            energies.append(stable_energy(mf, frame, level.settings, guess))
    good = [energy for energy in energies if energy is not None]
    return min(good) * HARTREE if good else None


def stable_energy(
    mf: Any,
    frame: Frame,
    settings: dict[str, Any],
    guess: str,
    density: Any = None,
) -> float | None:
    """Return the energy in hartree of one start followed to a minimum, or None."""
    mf.init_guess, mf.max_cycle, mf.conv_tol = guess, 100, 1e-10
    mf.kernel(density)
    stable = False
    for _ in range(5):
        if not mf.converged:
            orbitals, filled = mf.mo_coeff, mf.mo_occ
            mf = mf.newton()
            mf.kernel(orbitals, filled)
        orbitals, _, stable, _ = mf.stability(return_status=True)
        if stable:
            break
        filled, mf = mf.mo_occ, mean_field(frame, settings).newton()
        mf.kernel(orbitals, filled)
    return float(mf.e_tot) if stable and mf.converged else None


def mean_field(frame: Frame, settings: dict[str, Any]) -> Any:
    """Return a fresh mean field of plain PySCF at the level's settings."""
    from pyscf import dft, gto, scf

    atoms = [
        (chemical_symbol(int(z)), x)
        for z, x in zip(frame.numbers, frame.positions, strict=True)
    ]
    state = {"charge": frame.charge, "spin": frame.spin}
    mol = gto.M(atom=atoms, basis=settings["basis"], verbose=0, **state)
    if settings["method"] == "hf":
        return scf.UHF(mol) if frame.spin else scf.RHF(mol)
    mf = dft.UKS(mol) if frame.spin else dft.RKS(mol)
    mf.xc, mf.grids.level = settings["method"], settings["grid"]
    return mf.density_fit() if settings["density_fit"] else mf
