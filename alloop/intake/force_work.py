"""Comparison of energy differences between similar frames with the work of the forces.

The trapezoid -½(F1 + F2)·Δx is exact for a quadratic energy, and its error is of third
order in Δx otherwise, so frames a tenth of an Å apart tell mixed units from right ones.
"""

from collections import defaultdict

import numpy as np

from alloop.core.batch import evenly_thinned
from alloop.core.units import Booleans, Floats, Integers
from alloop.files.labelled_frames import LabelledFrames
from alloop.intake.superposition import centred, kabsch_rotation, pair_distances

_FRAMES = 1000  # of one molecule, compared with each other
_PAIRS = 60  # nearest pairs that are kept
_LEAST = 5  # with fewer pairs, there is no result
_SCATTER = 0.3  # of energy differences about the line; above it, there is no result
_SAME = 1e-4  # Å: frames nearer than this are copies


def energy_work_ratio(intake: LabelledFrames) -> float | None:
    """Return ΔE over -½(F1 + F2)·Δx of similar frames, 1 if the units agree.

    None if the frames are too few or too far apart to tell. The line through the origin
    is fitted by least absolute deviations: the ratio is the median of all ratios,
    weighted by the work.
    """
    found = [_energy_work_pairs(intake, group) for group in _molecule_groups(intake)]
    rises = np.concatenate([np.zeros(0), *(rise for rise, _ in found)])
    works = np.concatenate([np.zeros(0), *(work for _, work in found)])
    moved: Booleans = np.abs(works) > 0
    rises, works = rises[moved], works[moved]
    if len(works) < _LEAST:
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
    kept: Integers = pairs[first[np.argsort(gaps[first], kind="stable")[:_PAIRS]]]
    return kept


def _trapezoid_work(intake: LabelledFrames, i: int, j: int) -> float:
    """Return -½(F1 + F2)·Δx in eV, with the second frame rotated onto the first."""
    one = centred(intake.frames[i].positions)
    other = centred(intake.frames[j].positions)
    turn = kabsch_rotation(one, other)
    mean = 0.5 * (intake.forces[i] + intake.forces[j] @ turn)  # (atoms, 3) eV/Å
    return -float((mean * (other @ turn - one)).sum())


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])
