"""Labelled frames that a user brings: reading, conversion, unit checks, duplicates.

For example:

    intake = read_labels("water.npz", energy_unit="kcal/mol")
    print(intake.warnings)
    duplicate_frames(test.frames, intake.frames)

Magnitudes that cannot be right are told with the unit that would explain them. No such
check is certain, so nothing is refused: each gives a warning of one sentence.

Energy differences between similar frames are compared with the work of the forces. The
trapezoid -½(F1 + F2)·Δx is exact for a quadratic energy, and its error is of third
order in Δx otherwise, so frames a tenth of an Å apart tell mixed units from right ones.

Duplicates are recognised in any orientation, by superposition (Kabsch).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Literal

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import unpaired_electrons
from alloop.core.batch import evenly_thinned
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity
from alloop.core.records import Label
from alloop.core.units import (
    ENERGY_UNITS,
    HARTREE,
    LENGTH_UNITS,
    Booleans,
    Floats,
    Integers,
)
from alloop.files.label_files import convert_labels, listed_frames, read_file
from alloop.files.labelled_frames import (
    FORCE_UNITS,
    FileUnits,
    LabelKeys,
    LabelledFrames,
    RawLabel,
)
from alloop.history.reader import History, read_history

__all__ = [
    "FileUnits",
    "LabelledFrames",
    "duplicate_frames",
    "read_labels",
    "unit_warnings",
]

_SAMPLE = 100  # frames that are checked
_BONDS = (0.7, 1.5)  # nearest neighbours, in sums of covalent radii
_RMS = (0.05, 20.0)  # eV/Å: relaxed sets are below, broken ones above
_CLOSE = 0.06  # logarithm: ratios this near to a unit's factor are explained by it
_SURE = 0.1  # logarithm: ratios this near to 1 are right
_TOTALS = 0.22  # logarithm: accuracy of total energies from 0.5 Z^2.4

_FRAMES = 1000  # of one molecule, compared with each other
_PAIRS = 60  # nearest pairs that are kept
_MIN_PAIRS = 5  # with fewer pairs, there is no result
_SCATTER = 0.3  # of energy differences about the line; above it, there is no result
_SAME = 1e-4  # Å: frames nearer than this are copies
_Key = tuple[bytes, int, int]


def read_labels(  # noqa: PLR0913 - one keyword for each fact that a file cannot say
    path: str | Path,
    *,
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int | None = None,
    spin: int | None = None,
    multiplicity: int | None = None,
    fidelity: Fidelity | Literal["test"] | None = None,
    energies_alone: bool = False,
) -> LabelledFrames:
    """Read labelled frames from extxyz, an ASE database, npz, or an alloop store.

    Parameters
    ----------
    path
        `.npz` as MD17's, an ASE database (`.db`), a store's folder, or any file that
        `ase.io.read` reads.
    energy_unit, length_unit, force_unit
        Units of the file's numbers; forces default to energy/length.
    energy_key, forces_key
        Names in the file. In an npz, a prefix such as `cc_` of `cc_E` is also tried for
        the positions and atomic numbers.
    charge, spin, multiplicity
        Total charge (e) and 2S, or 2S + 1 in its place, of every frame; default to what
        the file says, then to a neutral singlet.
    fidelity
        Of a store only: "cheap" or "expensive" for the labels that it trains on, "test"
        for its test set.
    energies_alone
        Accept frames that have no forces, whose forces are then NaN.

    Raises:
    ------
    InputError
        The file, its labels or a unit cannot be used.
    """
    path, spin = Path(path), unpaired_electrons(spin, multiplicity)
    units = FileUnits(energy_unit, length_unit, force_unit or "")
    if not path.exists():
        raise InputError(f"expected a file of labelled frames at {path}, found nothing")
    if path.is_dir():
        raw_labels = _read_store(path, fidelity, units)
    else:
        keys = LabelKeys(energy_key, forces_key, energies_alone, charge, spin)
        raw_labels = read_file(path, keys)
    raw_labels = [_with_charge_and_spin(raw, charge, spin) for raw in raw_labels]
    intake = convert_labels(path, raw_labels, units)
    doubts = (*_odd_electrons(path, intake.frames), *unit_warnings(intake))
    return replace(intake, warnings=doubts)


def _with_charge_and_spin(
    raw: RawLabel, charge: int | None, spin: int | None
) -> RawLabel:
    return replace(
        raw,
        charge=raw.charge if charge is None else charge,
        spin=raw.spin if spin is None else spin,
    )


def _odd_electrons(path: Path, frames: Sequence[Frame]) -> tuple[str, ...]:
    odd = [
        index
        for index, frame in enumerate(frames)
        if not any(frame.pbc)
        and (int(frame.numbers.sum()) - frame.charge - frame.spin) % 2
    ]
    if not odd:
        return ()
    frame = frames[odd[0]]
    return (
        f"charge {frame.charge} and spin {frame.spin} (2S, the number of unpaired "
        f"electrons) do not fit the electrons of {listed_frames(odd)} in {path}; give "
        "`charge` and `multiplicity`",
    )


def _read_store(
    path: Path, fidelity: Fidelity | Literal["test"] | None, units: FileUnits
) -> list[RawLabel]:
    """Read the labels that a store trains on at a fidelity, or its test set ("test").

    Labels that were excluded there are left out. Raises InputError for an unknown
    fidelity, and for units that are not a store's.
    """
    if units != FileUnits():
        raise InputError(
            f"{path} is a folder, so it is read as an alloop store, which is in eV "
            "and Å; leave the units out"
        )
    history = read_history(path)
    levels = history.opened.levels
    if fidelity == "test":
        return _raw_labels(
            history, levels["expensive"], history.state.labels.validation_frames()
        )
    if fidelity is None or fidelity not in levels:
        raise InputError(
            f"expected `fidelity` to be one of {', '.join((*levels, 'test'))} for the "
            f"store {path}, got {fidelity}"
        )
    return _raw_labels(
        history, levels[fidelity], history.state.labels.trained_on(fidelity)
    )


def _raw_labels(
    history: History, level: str, frames: tuple[str, ...]
) -> list[RawLabel]:
    out = []
    for frame_id in frames:
        frame = history.label_index.frames[frame_id]
        label = history.label_index.labels[level, frame_id]
        if isinstance(label, Label):
            out.append(
                RawLabel(
                    numbers=frame.numbers,
                    positions=frame.positions,
                    energy=label.energy,
                    forces=label.forces,
                    charge=frame.charge,
                    spin=frame.spin,
                    cell=frame.cell,
                    pbc=frame.pbc,
                    stress=label.stress,
                )
            )
    return out


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
    ratios = [
        _relative_bond(frame) for frame in _sample_frames(intake) if len(frame) > 1
    ]
    ratio = float(np.median(ratios)) if ratios else 1.0
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
    ratio = energy_work_ratio(intake)
    if ratio is None or abs(ratio - 1) < _SURE:
        return None
    return (
        f"energies of near frames differ by {ratio:.3g} times the work of the forces "
        f"between them, expected 1{_mixed_units(intake, ratio)}"
    )


def _mixed_units(intake: LabelledFrames, ratio: float) -> str:
    if abs(ratio + 1) < _SURE:
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
        if abs(log(abs(ratio) / factor)) < _CLOSE
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


def energy_work_ratio(intake: LabelledFrames) -> float | None:
    """Return ΔE over -½(F1 + F2)·Δx of similar frames, 1 if the units agree.

    None if the frames are too few or too far apart to tell. The line through the origin
    is fitted by least absolute deviations: the ratio is the median of all ratios,
    weighted by the work.
    """
    pairs = [_energy_work_pairs(intake, group) for group in _molecule_groups(intake)]
    rises = np.concatenate([np.zeros(0), *(rise for rise, _ in pairs)])
    works = np.concatenate([np.zeros(0), *(work for _, work in pairs)])
    moved: Booleans = np.abs(works) > 0
    rises, works = rises[moved], works[moved]
    if len(works) < _MIN_PAIRS:
        return None
    fitted = _weighted_median(rises / works, np.abs(works))
    scatter = np.median(np.abs(rises - fitted * works)) / np.median(np.abs(rises))
    return fitted if scatter < _SCATTER else None


def _molecule_groups(intake: LabelledFrames) -> list[list[int]]:
    groups: dict[tuple[bytes, int, int], list[int]] = defaultdict(list)
    for index, frame in enumerate(intake.frames):
        if len(frame) > 1 and not any(frame.pbc):
            key = (frame.numbers.tobytes(), frame.charge, frame.spin)
            groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _energy_work_pairs(
    intake: LabelledFrames, group: list[int]
) -> tuple[Floats, Floats]:
    """Return energy differences and work (pairs,) in eV of a group's nearest frames."""
    some = group[evenly_thinned(len(group), _FRAMES)]
    near = _nearest_pairs(np.stack([intake.frames[index].positions for index in some]))
    rises = [intake.energies[some[j]] - intake.energies[some[i]] for i, j in near]
    works = [_trapezoid_work(intake, some[i], some[j]) for i, j in near]
    return np.array(rises), np.array(works)


def _nearest_pairs(positions: Floats) -> Integers:
    """Return pairs (pairs, 2) of each frame and the one most like it, nearest first."""
    d = pair_distances(positions)  # (frames, pairs)
    norms = (d**2).sum(axis=1)
    apart = np.sqrt(np.maximum(norms[:, None] + norms - 2 * d @ d.T, 0) / d.shape[1])
    apart[apart < _SAME] = np.inf
    partner = apart.argmin(axis=1)
    pairs = np.sort(np.stack([np.arange(len(d)), partner], axis=1), axis=1)
    gaps = apart[pairs[:, 0], pairs[:, 1]]
    first = np.unique(pairs, axis=0, return_index=True)[1]
    first = first[np.isfinite(gaps[first])]
    nearest: Integers = pairs[first[np.argsort(gaps[first], kind="stable")[:_PAIRS]]]
    return nearest


def _trapezoid_work(intake: LabelledFrames, i: int, j: int) -> float:
    """Return -½(F1 + F2)·Δx in eV, with the second frame rotated onto the first."""
    start = centred(intake.frames[i].positions)
    other = centred(intake.frames[j].positions)
    turn = kabsch_rotation(start, other)
    mean = 0.5 * (intake.forces[i] + intake.forces[j] @ turn)  # (atoms, 3) eV/Å
    return -float((mean * (other @ turn - start)).sum())


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


def duplicate_frames(
    test: Sequence[Frame], train: Sequence[Frame], tolerance: float = 1e-3
) -> list[tuple[int, int]]:
    """Return pairs (test index, train index) of frames with the same geometry.

    Two frames are the same if their ids are equal, or if charge, spin and the atoms in
    their order are equal and all atoms are closer than `tolerance` Å after optimal
    superposition, mirror images included. Periodic frames are the same only if their
    ids are equal.
    """
    duplicates = set(_same_ids(test, train))
    test_groups, train_groups = _composition_groups(test), _composition_groups(train)
    for key in test_groups.keys() & train_groups.keys():
        duplicates.update(
            _same_shapes(test, train, (test_groups[key], train_groups[key]), tolerance)
        )
    return sorted(duplicates)


def _same_ids(
    test: Sequence[Frame], train: Sequence[Frame]
) -> Iterator[tuple[int, int]]:
    places = defaultdict(list)
    for j, frame in enumerate(train):
        places[frame.id].append(j)
    for i, frame in enumerate(test):
        yield from ((i, j) for j in places.get(frame.id, ()))


def _composition_groups(frames: Sequence[Frame]) -> Mapping[_Key, list[int]]:
    groups: dict[_Key, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        if not any(frame.pbc):
            groups[frame.numbers.tobytes(), frame.charge, frame.spin].append(index)
    return groups


def _same_shapes(
    test: Sequence[Frame],
    train: Sequence[Frame],
    members: tuple[list[int], list[int]],
    tolerance: float,
) -> Iterator[tuple[int, int]]:
    test_members, train_members = members
    pairs = _similar_pairs(
        _stacked_positions(test, test_members),
        _stacked_positions(train, train_members),
        2 * tolerance,
    )
    for i, j in pairs:
        test_positions, train_positions = (
            test[test_members[i]].positions,
            train[train_members[j]].positions,
        )
        if largest_shift(test_positions, train_positions) < tolerance:
            yield test_members[i], train_members[j]


def _similar_pairs(
    test: Floats, train: Floats, width: float
) -> Iterator[tuple[int, int]]:
    """Yield index pairs of geometries whose pair distances all agree within `width`.

    If no atom moves by more than half of it, no distance can change by more. Sorting by
    the mean distance first leaves few to compare.
    """
    ours, theirs = pair_distances(test), pair_distances(train)
    if not ours.shape[1]:
        yield from np.ndindex(len(test), len(train))
        return
    order = np.argsort(theirs.mean(axis=1))
    means = theirs.mean(axis=1)[order]
    low = np.searchsorted(means, ours.mean(axis=1) - width, "left")
    high = np.searchsorted(means, ours.mean(axis=1) + width, "right")
    for i, window in enumerate(zip(low, high, strict=True)):
        near: Integers = order[slice(*window)]
        worst = np.abs(theirs[near] - ours[i]).max(axis=1)
        yield from ((i, int(j)) for j in near[worst <= width])


def _stacked_positions(frames: Sequence[Frame], indices: Sequence[int]) -> Floats:
    return np.stack([frames[index].positions for index in indices])


def kabsch_rotation(onto: Floats, moved: Floats, *, mirror: bool = False) -> Floats:
    """Return the matrix (3, 3) with which `moved @ matrix` comes closest to `onto`.

    Both (atoms, 3) in Å, centred at the origin; mirror: reflections are allowed too. W.
    Kabsch, Acta Cryst. A32, 922 (1976).
    """
    u, _, vt = np.linalg.svd(moved.T @ onto)
    handed = 1.0 if mirror else np.sign(np.linalg.det(u @ vt))
    matrix: Floats = u @ np.diag([1.0, 1.0, handed]) @ vt
    return matrix


def centred(positions: Floats) -> Floats:
    """Return positions (atoms, 3) relative to their mean."""
    out: Floats = positions - positions.mean(axis=0)
    return out


def largest_shift(first: Floats, second: Floats) -> float:
    """Return the largest distance between equal atoms after superposition, Å.

    Mirror images are the same geometry, since their energy and forces are the same.
    """
    first, second = centred(first), centred(second)
    moved = second @ kabsch_rotation(first, second, mirror=True)
    return float(np.linalg.norm(moved - first, axis=1).max())


def pair_distances(positions: Floats) -> Floats:
    """Return all pair distances (frames, pairs) of geometries (frames, atoms, 3), Å."""
    i, j = np.triu_indices(positions.shape[1], k=1)
    out: Floats = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    return out
