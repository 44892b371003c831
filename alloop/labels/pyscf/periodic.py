"""Labels of cells with k-points by LDA and GGA on a plane-wave grid, with stress.

PySCF has no derivatives for other cells: no hybrids, no meta-GGAs, no VV10, no
effective cores other than GTH pseudopotentials, no gamma point alone.
"""

import time
from typing import Any

import numpy as np
from pyscf.dft import libxc
from pyscf.pbc import dft, gto
from pyscf.pbc.gto.pseudo import ALIAS

from alloop.core.frame import Frame
from alloop.core.records import Detail, Failure
from alloop.core.stress import voigt
from alloop.core.units import BOHR, HARTREE
from alloop.labels.pyscf.functionals import is_known_functional
from alloop.labels.pyscf.scf import Settings, apply_thresholds, atom_list
from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS
from alloop.labels.result import Refused, Result

PSEUDOS = tuple(f"gth-{str(name).removeprefix('gth')}" for name in ALIAS)
_SETTINGS = {  # of the rungs that work with k-points
    "default": {},
    "damping": {"damp": 0.5, "diis_start_cycle": 4},
    "level shift": {"level_shift": 0.3},
}


def label_of_cell(frame: Frame, settings: Settings) -> Result:
    """Return energy, forces and stress of a cell.

    The stress is dE/dstrain over the volume, as in ASE: negative under pressure.
    Raises Refused if it does not converge or the frame is not a neutral cell.
    """
    if problem := _unfit_frame(frame):
        raise Refused(Failure.UNSUPPORTED, problem)
    cell = _make_cell(frame, settings)
    mf, details = _converged_cell(cell, settings)
    gradient = mf.nuc_grad_method()
    forces = -np.asarray(gradient.kernel(), dtype=np.float64) * (HARTREE / BOHR)
    stress = np.asarray(gradient.get_stress()) * (HARTREE / BOHR**3)  # (3, 3) eV/Å³
    details |= {"program": settings["program"], "functions": int(cell.nao)}
    return Result(float(mf.e_tot) * HARTREE, forces, details, voigt(stress))


def cell_problem(settings: Settings) -> str | None:
    """Return why the level cannot treat cells, in one sentence, or None."""
    if settings["method"] in WAVE_FUNCTIONS:
        return f"PySCF has no stress of cells for {settings['method']}; try pbe or svwn"
    if settings["density_fit"] or settings["dispersion"]:
        return "with `kpoints` there is no `density_fit` and no `dispersion`; drop them"
    if not set(settings["ladder"]) <= _SETTINGS.keys():
        return f"with `kpoints` the rungs of the ladder are {', '.join(_SETTINGS)}"
    return _mesh_problem(settings["kpoints"]) or _functional_problem(settings["method"])


def _mesh_problem(mesh: Any) -> str | None:
    triple = isinstance(mesh, list) and len(mesh) == 3
    if not triple or not all(isinstance(n, int) and n > 0 for n in mesh):
        return f"`kpoints` are three numbers such as [2, 1, 1], got {mesh!r}"
    if np.prod(mesh) == 1:
        return "PySCF has no forces at the gamma point alone; try [2, 1, 1] k-points"
    return None


def _functional_problem(method: str) -> str | None:
    if not is_known_functional(method):
        return f"PySCF knows no functional {method!r}"
    if libxc.is_nlc(method):
        return f"PySCF cannot differentiate VV10 in cells: {method!r}; try pbe"
    if libxc.is_hybrid_xc(method):
        return f"PySCF has no stress of hybrids: {method!r}; try pbe"
    if libxc.xc_type(method) not in ("LDA", "GGA"):
        return f"PySCF has no forces of meta-GGAs in cells: {method!r}; try pbe"
    return None


def _unfit_frame(frame: Frame) -> str | None:
    if not all(frame.pbc):
        return "a level with `kpoints` is for frames that are periodic in x, y and z"
    if frame.charge:
        return "a charged cell has no energy of its own; `kpoints` needs charge 0"
    return None


def _make_cell(frame: Frame, settings: Settings) -> Any:
    """Return a fresh cell; PySCF counts the spin of all k-points together."""
    return gto.M(
        a=frame.cell / BOHR,
        atom=atom_list(frame),
        unit="Bohr",
        basis=settings["basis"],
        pseudo=settings["pseudo"],
        ke_cutoff=settings["ke_cutoff"],
        spin=frame.spin * int(np.prod(settings["kpoints"])),
        max_memory=settings["max_memory"],
        verbose=0,
    )


def _converged_cell(cell: Any, settings: Settings) -> tuple[Any, dict[str, Detail]]:
    started, lost, tried = time.process_time(), 0.0, ""
    for rung in settings["ladder"]:
        tried = f"{tried},{rung}" if tried else rung
        mf = _mean_field(cell, settings)
        for name, value in _SETTINGS[rung].items():
            setattr(mf, name, value)
        mf.kernel()
        details = {"rung": rung, "rungs": tried, "lost_seconds": lost}
        details["cycles"] = int(mf.cycles)
        if mf.converged:
            return mf, details
        lost = time.process_time() - started
    text = f"the SCF of the cell did not converge on any rung ({tried})"
    raise Refused(Failure.NOT_CONVERGED, text, details | {"lost_seconds": lost})


def _mean_field(cell: Any, settings: Settings) -> Any:
    kpoints = cell.make_kpts(settings["kpoints"])
    open_shell = cell.spin or settings["reference"] == "unrestricted"
    kind = dft.KUKS if open_shell else dft.KRKS
    mf = kind(cell, kpoints)
    mf.xc = settings["method"]
    return apply_thresholds(mf, settings)
