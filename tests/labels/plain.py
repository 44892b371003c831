"""Reference energies by PySCF and tblite alone: not a line of alloop's labels in here.

The mean field is converged tightly from several guesses, each led downhill while it is
internally unstable, and the lowest is taken; slopes are central differences of
energies, each converged from the density in the middle. Run as a program, it answers
one line of JSON with another, in a process apart from the tests.
"""

import json
import sys
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree
from pyscf import cc, dft, gto, mp, scf

from alloop.core.frame import Frame

GUESSES = ("minao", "1e", "atom")
WAVES = ("hf", "mp2", "ccsd", "ccsd(t)")
STEP = 2e-3  # Å
FARTHEST = 0.01  # hartree; 100 eV/Å make 0.007 in a step


def molecule(frame: Frame, settings: dict[str, Any]) -> Any:
    symbols = [chemical_symbols[z] for z in frame.numbers]
    heavy = {s: settings["basis"] for s in symbols if chemical_symbols.index(s) > 36}
    return gto.M(
        atom=list(zip(symbols, (frame.positions / Bohr).tolist(), strict=True)),
        unit="Bohr",
        basis=settings["basis"],
        ecp={} if settings["basis"] == "sto-3g" else heavy,
        charge=frame.charge,
        spin=frame.spin,
        verbose=0,
    )


def mean_field(mol: Any, settings: dict[str, Any]) -> Any:
    wave, open_shell = settings["method"] in WAVES, mol.spin != 0
    if wave:
        mf = scf.UHF(mol) if open_shell else scf.RHF(mol)
    else:
        mf = dft.UKS(mol) if open_shell else dft.RKS(mol)
        mf.xc = settings["method"]
        mf.grids.level = settings["grid"]
    if settings["density_fit"]:
        mf = mf.density_fit()
    if settings["dispersion"]:
        mf.disp = settings["dispersion"]
    mf.conv_tol, mf.conv_tol_grad, mf.max_cycle = 1e-11, 1e-6, 200
    mf.chkfile = None
    return mf


def solved(mf: Any, density: Any) -> Any:
    """Converged, by second-order steps if nothing else helps; None if not even then."""
    mf.kernel(density)
    if not mf.converged:
        mf = mf.newton()
        mf.kernel(dm0=density)
    return mf if mf.converged else None


def carried(mf: Any, middle: Any) -> Any:
    """Second-order steps from the middle's orbitals, made orthonormal where `mf` is."""

    def orthonormal(c: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(c.T @ mf.get_ovlp() @ c)
        return c @ (vectors / np.sqrt(values)) @ vectors.T

    c, occupied = np.asarray(middle.mo_coeff), middle.mo_occ
    solver = mf.newton()
    turned = orthonormal(c) if c.ndim == 2 else np.array([orthonormal(x) for x in c])
    solver.kernel(turned, occupied)
    return solver if solver.converged else None


def followed(mf: Any, middle: Any) -> Any:
    """The state of the middle, a step away; None where it is lost."""
    near = solved(mf, middle.make_rdm1())
    if near is not None and abs(near.e_tot - middle.e_tot) < FARTHEST:
        return near
    return carried(mf, middle)


def downhill(mf: Any) -> Any:
    """The internally stable solution that lies below."""
    for _ in range(5):
        turned, _, stable, _ = mf.stability(return_status=True)
        if stable:
            return mf
        lower = mf.newton()
        lower.kernel(mo_coeff=turned, mo_occ=mf.mo_occ)
        if not lower.converged or lower.e_tot > mf.e_tot - 1e-8:
            return mf  # the check was wrong: atoms' shells turn for nothing on a grid
        mf = lower.undo_soscf() if hasattr(lower, "undo_soscf") else lower
        mf.converged = True
    return mf


def lowest(frame: Frame, settings: dict[str, Any]) -> Any:
    """The lowest mean field that several guesses lead to."""
    mol, found = molecule(frame, settings), []
    for guess in GUESSES:
        mf = mean_field(mol, settings)
        mf = solved(mf, mf.get_init_guess(mol, guess))
        if mf is not None:
            found.append(downhill(mf) if mol.nelectron > 1 else mf)
    return min(found, key=lambda mf: mf.e_tot)


def total(mf: Any, settings: dict[str, Any]) -> float:
    """Total energy in hartree, correlation included."""
    method = settings["method"]
    if method not in WAVES[1:]:
        return float(mf.e_tot)
    core = sum(1 for z in mf.mol.atom_charges() if z > 2) if frozen(settings) else None
    if method == "mp2":
        return float(mp.MP2(mf, frozen=core).run().e_tot)
    for damping in (1.0, 0.6):
        solver = cc.CCSD(mf, frozen=core)
        solver.conv_tol, solver.conv_tol_normt, solver.max_cycle = 1e-10, 1e-7, 300
        solver.iterative_damping, solver.diis_space = damping, 10
        solver.kernel()
        if solver.converged:
            break
    else:
        raise RuntimeError("the reference's CCSD did not converge")
    return float(solver.e_tot + (solver.ccsd_t() if method == "ccsd(t)" else 0.0))


def frozen(settings: dict[str, Any]) -> bool:
    return bool(settings.get("frozen_core"))


def reference(
    frame: Frame, settings: dict[str, Any], direction: np.ndarray
) -> tuple[float, float]:
    """Energy (eV) and its slope (eV/Å) along a unit vector (atoms, 3)."""
    middle = lowest(frame, settings)
    energy = total(middle, settings) * Hartree
    ends = []
    for step in (-STEP, STEP):
        there = Frame(
            frame.numbers,
            frame.positions + step * direction,
            frame.charge,
            frame.spin,
        )
        mf = mean_field(molecule(there, settings), settings)
        mf = followed(mf, middle)
        if mf is None:
            raise RuntimeError("the reference's SCF did not converge")
        ends.append(total(mf, settings) * Hartree)
    return energy, (ends[1] - ends[0]) / (2 * STEP)


def xtb_reference(
    frame: Frame, method: str, direction: np.ndarray
) -> tuple[float, float]:
    """The same by tblite, called by hand."""
    from tblite.interface import Calculator

    def energy(step: float) -> float:
        places = (frame.positions + step * direction) / Bohr
        calculator = Calculator(
            method, frame.numbers, places, float(frame.charge), frame.spin
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 1e-3)
        return float(calculator.singlepoint().get("energy")) * Hartree

    return energy(0.0), (energy(STEP) - energy(-STEP)) / (2 * STEP)


def answer(line: str) -> str:
    asked = json.loads(line)
    frame = Frame(asked["numbers"], asked["positions"], asked["charge"], asked["spin"])
    settings, direction = asked["settings"], np.array(asked["direction"])
    if asked["kind"] == "xtb":
        name = {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB"}[settings["method"]]
        return json.dumps(xtb_reference(frame, name, direction))
    return json.dumps(reference(frame, settings, direction))


if __name__ == "__main__":
    for question in sys.stdin:
        try:
            said = answer(question)
        except (RuntimeError, ValueError) as error:
            said = json.dumps(str(error))
        print(said, flush=True)  # noqa: T201
