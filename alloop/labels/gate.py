"""Checks of every label: geometry before it is made, numbers after.

PySCF converges for atoms 0.1 Å apart and returns forces of unconverged densities
without a warning, so a label is not trusted merely because it converged.

Before: no two atoms closer than 0.5 of the sum of their covalent radii (programs check
charge and spin themselves). After: the shape, finite numbers, no component
above 100 eV/Å, and the net force and torque, which vanish for every true gradient (in
a cell only the net force does). The thresholds are in
`alloop.labels.tolerances`; a level's setting `gate`, a mapping of some fields of
`Tolerances` to numbers, overrides them. Net force and torque reveal an error on single
atoms, but not a wrong scale or sign; `slope` reveals those (see
`alloop.labels.slope_check`).
"""

from itertools import product

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame, frame_fault
from alloop.core.levels import Level
from alloop.core.records import Failure
from alloop.core.units import Floats, Integers
from alloop.labels.programs import level_tolerances
from alloop.labels.result import Refused, Result
from alloop.labels.tolerances import Tolerances

ELEMENTS = range(1, 119)
_PAIRWISE = 300  # positions, up to which all pairs are compared


def check_electrons(frame: Frame) -> str | None:
    """Return why charge and spin (2S) do not fit the frame's electrons, or None."""
    electrons = int(frame.numbers.sum()) - frame.charge
    if electrons < 1:
        return f"charge {frame.charge} leaves {electrons} electrons"
    if not 0 <= frame.spin <= electrons:
        return f"{electrons} electrons cannot have spin {frame.spin} (2S)"
    if (electrons - frame.spin) % 2:
        kind = "an even" if electrons % 2 == 0 else "an odd"
        hint = f" (a multiplicity of {frame.spin} would fit)" if frame.spin else ""
        return (
            f"{electrons} electrons need {kind} spin (2S), got {frame.spin}{hint} "
            f"with charge {frame.charge}"
        )
    return None


def check_geometry(frame: Frame, limits: Tolerances) -> str | None:
    """Return why the geometry is unreasonable, or None."""
    if fault := frame_fault(frame):
        return fault
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


def check_result(
    frame: Frame, result: Result, limits: Tolerances, has_forces: bool = True
) -> str | None:
    """Return why the numbers cannot be a label of this frame, or None.

    has_forces: False for a label with an energy alone.
    """
    F = result.forces  # (atoms, 3) eV/Å
    if F.shape != (len(frame), 3):
        return f"expected forces of shape {(len(frame), 3)}, got {F.shape}"
    if not has_forces:
        return None if np.isfinite(result.energy) else "the energy is not finite"
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


def refuse_result(frame: Frame, result: Result, level: Level) -> None:
    """Raise `Refused` if the result cannot be trusted."""
    limits = level_tolerances(level)
    if problem := check_result(frame, result, limits, level.has_forces):
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
    if len(places) > _PAIRWISE:
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
