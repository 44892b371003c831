"""The two gates around every label: geometry and electrons before, numbers after.

PySCF converges for atoms 0.1 Å apart and returns forces of unconverged densities
without a word: nothing is trusted for having converged alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import symbol
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure
from alloop.core.units import Floats, Integers
from alloop.labels.outcome import Refused, Result

WAVE_FUNCTIONS = ("hf", "mp2", "ccsd", "ccsd(t)")
ELEMENTS = range(1, 119)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Where the gates close.

    closest: distance over the sum of covalent radii (Cordero 2008, as in ASE).
    net_force in eV/Å, torque in eV (about the centroid, molecules only), force: the
    largest component in eV/Å.
    """

    closest: float = 0.5
    net_force: float = 0.05
    torque: float = 0.5
    force: float = 100.0


# A quadrature grid neither moves nor turns with the molecule as a whole; without one
# both sums vanish to rounding.
_GRID = Tolerances(net_force=5e-3, torque=5e-2)
_EXACT = Tolerances(net_force=1e-4, torque=1e-3)
_FOREIGN = Tolerances()


def tolerances(level: Level) -> Tolerances:
    """The gate of a level: tight without a grid, wide for a stranger's program."""
    if level.kind == "pyscf":
        return _EXACT if level.settings["method"] in WAVE_FUNCTIONS else _GRID
    return _EXACT if level.kind == "toy" else _FOREIGN


def check_electrons(frame: Frame) -> str | None:
    """Why charge and spin (2S) do not fit the electrons of the frame, or None."""
    electrons = int(frame.numbers.sum()) - frame.charge
    if electrons < 1:
        return f"charge {frame.charge} leaves {electrons} electrons"
    if abs(frame.spin) > electrons:
        return f"{electrons} electrons cannot have spin {frame.spin} (2S)"
    if (electrons - frame.spin) % 2:
        kind = "an even" if electrons % 2 == 0 else "an odd"
        return (
            f"{electrons} electrons need {kind} spin (2S), got {frame.spin} "
            f"with charge {frame.charge}"
        )
    return None


def check_geometry(frame: Frame, limits: Tolerances) -> str | None:
    """Why the geometry makes no sense, or None."""
    if len(frame) == 0:
        return "the frame has no atoms"
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        return "positions or cell are not finite"
    ratio, i, j = min(_contacts(frame), default=(np.inf, 0, 0))
    if ratio < limits.closest:
        pair = (
            f"{symbol(int(frame.numbers[i]))}{i} and {symbol(int(frame.numbers[j]))}{j}"
        )
        return (
            f"{pair} are at {ratio:.2f} of the sum of their covalent radii, "
            f"the least allowed is {limits.closest:.2f}"
        )
    return None


def check_result(frame: Frame, result: Result, limits: Tolerances) -> str | None:
    """Why the numbers cannot be a label of this frame, or None."""
    F = result.forces  # (atoms, 3) eV/Å
    if F.shape != (len(frame), 3):
        return f"expected forces of shape {(len(frame), 3)}, got {F.shape}"
    if not (np.isfinite(result.energy) and np.isfinite(F).all()):
        return "energy or forces are not finite"
    x = frame.positions - frame.positions.mean(axis=0)  # (atoms, 3) Å
    net = float(np.linalg.norm(F.sum(axis=0)))  # eV/Å
    torque = float(np.linalg.norm(np.cross(x, F).sum(axis=0)))  # eV
    turned = torque if not any(frame.pbc) else 0.0
    return _excess(net, turned, float(np.abs(F).max()), limits)


def refuse_frame(frame: Frame, level: Level) -> None:
    """Raise `Refused` where the frame should not even be tried at the level."""
    strange = sorted({int(z) for z in frame.numbers if int(z) not in ELEMENTS})
    if strange:
        raise Refused(Failure.UNSUPPORTED, f"there is no element with number {strange}")
    if problem := check_geometry(frame, tolerances(level)):
        raise Refused(Failure.GEOMETRY, problem)
    if level.kind == "pyscf" and (problem := check_electrons(frame)):
        raise Refused(Failure.ELECTRONS, problem)


def refuse_result(frame: Frame, result: Result, level: Level) -> None:
    """Raise `Refused` where the result cannot be trusted."""
    if problem := check_result(frame, result, tolerances(level)):
        raise Refused(Failure.GATE, problem, result.details)


def _excess(net: float, torque: float, largest: float, at: Tolerances) -> str | None:
    if net > at.net_force:
        return f"net force {net:.2g} eV/Å, at most {at.net_force:g} is allowed"
    if torque > at.torque:
        return f"net torque {torque:.2g} eV, at most {at.torque:g} is allowed"
    if largest > at.force:
        return f"a force of {largest:.3g} eV/Å, at most {at.force:g} is allowed"
    return None


def _contacts(frame: Frame) -> Iterator[tuple[float, int, int]]:
    """For each atom: its closest contact over the sum of radii, and the two indices."""
    images, owners = _images(frame)
    radii: Floats = covalent_radii[frame.numbers]  # (atoms,) Å
    for i, position in enumerate(frame.positions):
        ratio = np.linalg.norm(images - position, axis=1) / (radii[i] + radii[owners])
        ratio[i] = np.inf  # the first images are the atoms themselves
        j = int(ratio.argmin())
        if np.isfinite(ratio[j]):
            yield float(ratio[j]), i, int(owners[j])


def _images(frame: Frame) -> tuple[Floats, Integers]:
    """Positions of the atoms, then of their nearest periodic images, and whose."""
    steps = product(*[(0, 1, -1) if periodic else (0,) for periodic in frame.pbc])
    shifts = np.array(list(steps), dtype=np.float64) @ frame.cell  # (images, 3) Å
    images = (shifts[:, None] + frame.positions).reshape(-1, 3)
    return images, np.tile(np.arange(len(frame)), len(shifts))
