"""Checks for magnitudes that cannot be right, and for the unit that would explain them.

None of the checks is certain, so nothing is refused: each gives a warning of one
sentence.
"""

from collections.abc import Callable, Mapping
from math import log

import numpy as np
from ase.data import covalent_radii

from alloop.core.frame import Frame
from alloop.core.units import ENERGY_UNITS, HARTREE, LENGTH_UNITS
from alloop.files.labelled_frames import FORCE_UNITS, LabelledFrames
from alloop.intake.force_work import energy_work_ratio

_SAMPLE = 100  # frames that are checked
_BONDS = (0.7, 1.5)  # nearest neighbours, in sums of covalent radii
_RMS = (0.05, 20.0)  # eV/Å: relaxed sets are below, broken ones above
_CLOSE = 0.06  # logarithm: ratios this near to a unit's factor are explained by it
_SURE = 0.1  # logarithm: ratios this near to 1 are right
_TOTALS = 0.22  # logarithm: accuracy of total energies from 0.5 Z^2.4


def unit_warnings(intake: LabelledFrames) -> tuple[str, ...]:
    """Return warnings about lengths, forces and energies, a sentence each.

    Lengths are compared with covalent radii, forces with typical ones of molecules,
    total energies with those of atoms, and energy differences of similar frames with
    the work of the forces between them.
    """
    checks: tuple[Callable[[LabelledFrames], str | None], ...] = (
        *(_length_warning, _force_warning, _total_energy_warning, _work_warning),
    )
    return tuple(doubt for check in checks if (doubt := check(intake)))


def _length_warning(intake: LabelledFrames) -> str | None:
    found = [
        _relative_bond(frame) for frame in _sample_frames(intake) if len(frame) > 1
    ]
    ratio = float(np.median(found)) if found else 1.0
    if _BONDS[0] <= ratio <= _BONDS[1]:
        return None
    declared = intake.units.length
    factors = {u: LENGTH_UNITS[declared] / x for u, x in LENGTH_UNITS.items()}
    unit = _explaining_unit(ratio, factors, 0.3)
    hint = f"; lengths in {unit} would explain it" if unit else ""
    return (
        f"nearest neighbours are {ratio:.2f} bond lengths apart if lengths are in "
        f"{declared}, which fits no molecule{hint}"
    )


def _relative_bond(frame: Frame) -> float:
    """Return the median of nearest-neighbour distances over sums of covalent radii."""
    apart = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=-1)
    np.fill_diagonal(apart, np.inf)
    radii = covalent_radii[frame.numbers]
    relative = apart / (radii[:, None] + radii)
    return float(np.median(relative.min(axis=1)))


def _force_warning(intake: LabelledFrames) -> str | None:
    rms = [
        float(np.sqrt((forces**2).mean()))
        for forces in intake.forces
        if len(forces) and np.isfinite(forces).all()
    ]
    if not rms:
        return None
    typical = float(np.median(rms))
    if _RMS[0] <= typical <= _RMS[1]:
        return None
    return (
        f"the typical force is {typical:.3g} eV/Å if forces are in "
        f"{intake.units.force}; molecules in motion feel {_RMS[0]} to {_RMS[1]:.0f}"
    )


def _total_energy_warning(intake: LabelledFrames) -> str | None:
    """Compare total energies with 0.5 Z^2.4 hartree, which holds within a few percent.

    A wrong unit shows in the ratio. Energies relative to atoms or of valence electrons
    give no warning.
    """
    expected = [0.5 * (frame.numbers**2.4).sum() * HARTREE for frame in intake.frames]
    ratio = float(np.median(-intake.energies / np.array(expected)))
    declared = intake.units.energy
    factors = {u: ENERGY_UNITS[declared] / x for u, x in ENERGY_UNITS.items()}
    unit = _explaining_unit(ratio, factors, _TOTALS)
    if unit in (None, declared):
        return None
    return (
        f"energies are {ratio:.3g} times the total energies of such atoms if they are "
        f"in {declared}; {unit} would explain it"
    )


def _work_warning(intake: LabelledFrames) -> str | None:
    """Warn if ΔE of similar frames is not -½(F1 + F2)·Δx.

    Then units or a sign are mixed up.
    """
    found = energy_work_ratio(intake)
    if found is None or abs(found - 1) < _SURE:
        return None
    return (
        f"energies of near frames differ by {found:.3g} times the work of the forces "
        f"between them, expected 1{_mixed_units(intake, found)}"
    )


def _mixed_units(intake: LabelledFrames, found: float) -> str:
    if abs(found + 1) < _SURE:
        return "; forces of the other sign (gradients) would explain it"
    units = intake.units
    energies = {
        f"energies in {unit} with forces in {units.force}": units.to_ev / x
        for unit, x in ENERGY_UNITS.items()
    }
    forces = {
        f"energies in {units.energy} with forces in {unit}": x
        / units.to_ev_per_angstrom
        for unit, x in FORCE_UNITS.items()
    }
    fitting = [
        words
        for words, factor in {**energies, **forces}.items()
        if abs(log(abs(found) / factor)) < _CLOSE
    ]
    return f"; {', or '.join(fitting)} would explain it" if fitting else ""


def _explaining_unit(
    ratio: float, factors: Mapping[str, float], width: float
) -> str | None:
    """Return the unit whose factor is nearest to the ratio, None if none is near."""
    if ratio <= 0:
        return None
    unit = min(factors, key=lambda name: abs(log(ratio / factors[name])))
    return unit if abs(log(ratio / factors[unit])) < width else None


def _sample_frames(intake: LabelledFrames) -> list[Frame]:
    step = max(1, len(intake) // _SAMPLE)
    return list(intake.frames[::step])
