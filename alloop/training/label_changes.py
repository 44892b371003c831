"""Labels adapted to another level's, joined, and freed of reference energies. Pure.

A level's references are the energies that it gives to an atom of each element. Two
levels differ by tens of electronvolts a molecule for reasons that do not affect forces
(missing correlation, another basis). Each level is shifted by its own references, so
that a network only learns the rest, a factor means the same for energies and forces,
and a sum of labels is the label of a sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch, pack_frames, take_atoms
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, Predictions
from alloop.core.stress import stack_stress
from alloop.core.units import Floats, Integers

References: TypeAlias = dict[int, float]  # atomic number -> eV


def scaled_labels(labels: LabelSet, factor: float) -> LabelSet:
    """Return the labels with energies, forces and stress multiplied by a factor."""
    return replace(
        labels,
        energies=factor * labels.energies,
        forces=factor * labels.forces,
        stress=None if labels.stress is None else factor * labels.stress,
    )


def add_predictions(
    labels: LabelSet, predictions: Predictions, sign: float = 1.0
) -> LabelSet:
    """Return the labels plus `sign` times a potential's predictions for them.

    The stress is left out where the potential gives none.
    """
    stress = None
    if labels.stress is not None and predictions.stress is not None:
        stress = labels.stress + sign * predictions.stress
    return replace(
        labels,
        energies=labels.energies + sign * predictions.energies,
        forces=labels.forces + sign * predictions.forces,
        stress=stress,
    )


def joined_labels(*parts: LabelSet) -> LabelSet:
    """Return the label sets joined, one after the other."""
    return LabelSet(
        pack_frames([frame for part in parts for frame in part.batch.frames()]),
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
        stack_stress([row for part in parts for row in _stress_rows(part)]),
    )


def expensive_repeats(cheap: int, expensive: int, mix: float) -> int:
    """Return the number of times each expensive frame stands among the cheap ones.

    A share of about `mix` of all frames is then expensive. It is at least 1, and 0
    without expensive frames.
    """
    if expensive == 0:
        return 0
    return max(1, round(mix / (1.0 - mix) * cheap / expensive))


def select_labels(labels: LabelSet, frames: Integers) -> LabelSet:
    """Return the labels of some frames, in that order; frames may be repeated."""
    atoms = take_atoms(labels.batch.offsets, frames)
    return LabelSet(
        labels.batch.select(frames),
        labels.energies[frames],
        labels.forces[atoms],
        None if labels.stress is None else labels.stress[frames],
        None if labels.dipoles is None else labels.dipoles[frames],
    )


def mixed_labels(
    cheap: LabelSet, expensive: LabelSet, mix: float, weights: Floats | None = None
) -> tuple[LabelSet, Floats]:
    """Return cheap and repeated expensive labels with weights (frames,) of mean 1.

    weights are those of the cheap frames (cheap frames,), uniform where it is None.
    """
    times = expensive_repeats(len(cheap), len(expensive), mix)
    often = select_labels(expensive, np.tile(np.arange(len(expensive)), times))
    first = np.ones(len(cheap)) if weights is None else weights
    joined_weights = np.concatenate([first, np.ones(len(often))])
    return joined_labels(cheap, often), joined_weights / joined_weights.mean()


def _stress_rows(labels: LabelSet) -> Sequence[Floats | None]:
    return [None] * len(labels) if labels.stress is None else list(labels.stress)


def element_counts(batch: Batch, elements: Integers) -> Floats:
    """Return the number of atoms of each element in each frame, (frames, elements)."""
    counts = np.zeros((len(batch), len(elements)))
    columns = np.searchsorted(elements, batch.numbers)
    np.add.at(counts, (batch.frame_index, columns), 1.0)
    return counts


def fit_references(labels: LabelSet) -> References:
    """Return least-squares energies per element, in eV.

    Where the compositions do not determine them (one molecule only) the solution of
    least norm is taken: a constant for each composition.
    """
    elements = np.unique(labels.batch.numbers)
    counts = element_counts(labels.batch, elements)
    solution, *_ = np.linalg.lstsq(counts, labels.energies, rcond=None)
    return {int(z): float(e) for z, e in zip(elements, solution, strict=True)}


def level_references(
    labels: LabelSet, energies: Mapping[int, float] | None = None
) -> References:
    """Return the given references (isolated atoms, say), or fitted ones without any.

    Raises:
    ------
    InputError
        If an element of the labels is missing among the given ones.
    """
    if energies is None:
        return fit_references(labels)
    missing = sorted({int(z) for z in labels.batch.numbers} - set(energies))
    if missing:
        names = ", ".join(chemical_symbol(z) for z in missing)
        raise InputError(
            f"expected a reference energy for every element, got none for {names}; "
            "add it, or leave all out to have them fitted"
        )
    return dict(energies)


def reference_energies(batch: Batch, energies: Mapping[int, float]) -> Floats:
    """Return the sum of the atoms' references for each frame, (frames,) in eV."""
    elements = np.array(sorted(energies), dtype=np.int64)
    values = np.array([energies[int(z)] for z in elements])
    out: Floats = element_counts(batch, elements) @ values
    return out


def without_references(labels: LabelSet, energies: Mapping[int, float]) -> LabelSet:
    """Return the labels with the references subtracted from the energies."""
    rest = labels.energies - reference_energies(labels.batch, energies)
    return replace(labels, energies=rest)
