"""Checks of every label: geometry and electrons before it is made, numbers after.

PySCF converges for atoms 0.1 Å apart and returns forces of unconverged densities
without a warning, so a label is not trusted merely because it converged.

Before: no two atoms closer than 0.5 of the sum of their covalent radii, and a number
of electrons that fits charge and spin. After: the shape, finite numbers, no component
above 100 eV/Å, and the net force and torque, which vanish for every true gradient (in
a cell only the net force does). The thresholds by class of level, beside the largest
values measured on molecules of 1 to 12 atoms, H to Au, charges -1 to 1
(`tests/labels/test_gate.py` measures some):

=================================== ============== ============ ============= =========
level                               net force eV/Å measured     torque eV     measured
=================================== ============== ============ ============= =========
HF, MP2, CCSD, CCSD(T), GFN-xTB     1e-4           6e-8         1e-3          1.2e-4
Kohn-Sham with grid response        1e-4           3e-7         0.1           5.8e-2
Kohn-Sham without grid response     0.02           1.2e-2       0.1           5.6e-2
any other program                   0.05                        0.5
=================================== ============== ============ ============= =========

Kohn-Sham forces have a torque because the grid does not rotate with the molecule:
5.8e-2 at grid 0, 3e-2 at grid 1, 1.5e-2 at grid 3 (M06-2X, the worst; 9e-3 with gold;
else 1e-3). Without grid response the net force is as large as the error of the forces,
0.1 to 1.6 eV/Å at grid 0, so refusing such labels is right. The torque is taken about
the centroid, so that it does not depend on where the molecule is.

A level's setting `gate`, a mapping of some fields of `Tolerances` to numbers, overrides
its thresholds. Net force and torque reveal an error on single atoms, but not a wrong
scale or sign; `slope` reveals those (see `alloop.labels.slope_check`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure
from alloop.core.units import Floats, Integers
from alloop.labels.result import Refused, Result

WAVE_FUNCTIONS = ("hf", "mp2", "ccsd", "ccsd(t)")
ELEMENTS = range(1, 119)
_FARTHEST = 1e6  # Å
_FEW = 300  # positions, up to which all pairs are compared
_THINNEST = 0.1  # Å


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The thresholds of the checks.

    closest: smallest distance over the sum of covalent radii (Cordero 2008, as in ASE).
    Largest net_force in eV/Å, torque in eV (about the centroid, molecules only) and
    force component in eV/Å. slope: the share of labels whose forces are compared with
    the energy of a neighbouring frame, 0 to 1.
    """

    closest: float = 0.5
    net_force: float = 0.05
    torque: float = 0.5
    force: float = 100.0
    slope: float = 0.0


_EXACT = Tolerances(net_force=1e-4, torque=1e-3)
_GRID = Tolerances(net_force=1e-4, torque=0.1)
_FIXED_GRID = Tolerances(net_force=0.02, torque=0.1)
_FOREIGN = Tolerances()


def level_tolerances(level: Level) -> Tolerances:
    """Return the thresholds of a level's class, overridden by its setting `gate`."""
    settings = level.settings
    return replace(_class_tolerances(level.kind, settings), **settings.get("gate", {}))


def gate_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a level's setting `gate`, one sentence each."""
    given = settings.get("gate", {})
    if not isinstance(given, Mapping):
        return [f"expected `gate` to map names to numbers, got {given!r}"]
    return [
        text for key, value in given.items() if (text := _wrong_threshold(key, value))
    ]


def _class_tolerances(kind: str, settings: Mapping[str, Any]) -> Tolerances:
    if kind in ("toy", "xtb"):
        return _EXACT
    if kind != "pyscf":
        return _FOREIGN
    if settings["method"] in WAVE_FUNCTIONS:
        return _EXACT
    return _GRID if settings.get("grid_response") else _FIXED_GRID


def _wrong_threshold(key: str, value: object) -> str | None:
    names = [field.name for field in fields(Tolerances)]
    if key not in names:
        hint = get_close_matches(key, names, n=1) or names
        return f"a gate has no threshold {key!r}; try {', '.join(hint)}"
    top = 1.0 if key == "slope" else np.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected the gate's {key} to be a number, got {value!r}"
    if not 0 <= value <= top:
        return f"expected the gate's {key} to be 0 to {top:g}, got {value:g}"
    return None


def check_electrons(frame: Frame) -> str | None:
    """Return why charge and spin (2S) do not fit the frame's electrons, or None."""
    electrons = int(frame.numbers.sum()) - frame.charge
    if electrons < 1:
        return f"charge {frame.charge} leaves {electrons} electrons"
    if not 0 <= frame.spin <= electrons:
        return f"{electrons} electrons cannot have spin {frame.spin} (2S)"
    if (electrons - frame.spin) % 2:
        kind = "an even" if electrons % 2 == 0 else "an odd"
        return (
            f"{electrons} electrons need {kind} spin (2S), got {frame.spin} "
            f"with charge {frame.charge}"
        )
    return None


def check_geometry(frame: Frame, limits: Tolerances) -> str | None:
    """Return why the geometry is unreasonable, or None."""
    if len(frame) == 0:
        return "the frame has no atoms"
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        return "positions or cell are not finite"
    if np.abs(frame.positions).max() > _FARTHEST:
        return f"coordinates beyond {_FARTHEST:g} Å lose their last digits"
    if any(np.linalg.norm(frame.cell[list(frame.pbc)], axis=1) < _THINNEST):
        return "a periodic direction has no cell vector"
    if contact := _closest_contact(frame, limits.closest):
        ratio, i, j = contact
        pair = (
            f"{chemical_symbol(int(frame.numbers[i]))}{i} and "
            f"{chemical_symbol(int(frame.numbers[j]))}{j}"
        )
        return (
            f"{pair} are at {ratio:.2f} of the sum of their covalent radii, "
            f"the least allowed is {limits.closest:.2f}"
        )
    return None


def check_result(frame: Frame, result: Result, limits: Tolerances) -> str | None:
    """Return why the numbers cannot be a label of this frame, or None."""
    F = result.forces  # (atoms, 3) eV/Å
    if F.shape != (len(frame), 3):
        return f"expected forces of shape {(len(frame), 3)}, got {F.shape}"
    if not (np.isfinite(result.energy) and np.isfinite(F).all()):
        return "energy or forces are not finite"
    x = frame.positions - frame.positions.mean(axis=0)  # (atoms, 3) Å
    net = float(np.linalg.norm(F.sum(axis=0)))  # eV/Å
    torque = float(np.linalg.norm(np.cross(x, F).sum(axis=0)))  # eV
    turned = torque if not any(frame.pbc) else 0.0
    return _force_excess(net, turned, float(np.abs(F).max()), limits)


def refuse_frame(frame: Frame, level: Level) -> None:
    """Raise `Refused` if the frame should not be attempted at the level."""
    strange = sorted({int(z) for z in frame.numbers if int(z) not in ELEMENTS})
    if strange:
        raise Refused(Failure.UNSUPPORTED, f"there is no element with number {strange}")
    if problem := check_geometry(frame, level_tolerances(level)):
        raise Refused(Failure.GEOMETRY, problem)
    # xTB counts its electrons itself: its lanthanoids have no f electrons.
    if level.kind == "pyscf" and (problem := check_electrons(frame)):
        raise Refused(Failure.ELECTRONS, problem)


def refuse_result(frame: Frame, result: Result, level: Level) -> None:
    """Raise `Refused` if the result cannot be trusted."""
    if problem := check_result(frame, result, level_tolerances(level)):
        raise Refused(Failure.GATE, problem, result.details)


def _force_excess(
    net: float, torque: float, largest: float, at: Tolerances
) -> str | None:
    if net > at.net_force:
        return f"net force {net:.2g} eV/Å, at most {at.net_force:g} is allowed"
    if torque > at.torque:
        return f"net torque {torque:.2g} eV, at most {at.torque:g} is allowed"
    if largest > at.force:
        return f"a force of {largest:.3g} eV/Å, at most {at.force:g} is allowed"
    return None


def _near(places: Floats, reach: float) -> tuple[Integers, Integers]:
    """Return the indices i and j of pairs at most `reach` apart, each pair once."""
    if len(places) > _FEW:
        from scipy.spatial import cKDTree  # slower to import than to compare few pairs

        i, j = cKDTree(places).query_pairs(reach, output_type="ndarray").T
        return i, j
    i, j = np.triu_indices(len(places), 1)
    near = np.linalg.norm(places[i] - places[j], axis=1) <= reach
    return i[near], j[near]


def _closest_contact(frame: Frame, limit: float) -> tuple[float, int, int] | None:
    """Return the closest contact below `limit`, or None.

    That is its distance over the sum of covalent radii, and the indices of both atoms.
    """
    images, owners = _periodic_images(frame)
    radii = covalent_radii[frame.numbers[owners]]  # (images,) Å
    reach = 2 * limit * float(radii.max())  # Å
    i, j = _near(images, reach)
    i, j = i[i < len(frame)], j[i < len(frame)]  # the first images are the atoms
    distances = np.linalg.norm(images[i] - images[j], axis=1)  # (pairs,) Å
    ratios = distances / (radii[i] + radii[j])
    if not len(ratios) or ratios.min() >= limit:
        return None
    at = int(ratios.argmin())
    return float(ratios[at]), int(owners[i[at]]), int(owners[j[at]])


def _periodic_images(frame: Frame) -> tuple[Floats, Integers]:
    """Return the positions of the atoms and of their nearest images, and the atoms.

    The atoms themselves come first.
    """
    steps = product(*[(0, 1, -1) if periodic else (0,) for periodic in frame.pbc])
    shifts = np.array(list(steps), dtype=np.float64) @ frame.cell  # (images, 3) Å
    images = (shifts[:, None] + frame.positions).reshape(-1, 3)
    return images, np.tile(np.arange(len(frame)), len(shifts))
