"""Reference energies: the energy that each level gives to an atom of each element.

Two levels differ by tens of electronvolts a molecule for reasons that do not affect
forces (missing correlation, another basis). Each level is shifted by its own
references, so that a network only learns the rest.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet
from alloop.core.units import Floats, Integers

References: TypeAlias = dict[int, float]  # atomic number -> eV


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
    labels: LabelSet, given: Mapping[int, float] | None = None
) -> References:
    """Return the given references (isolated atoms, say), or fitted ones without any.

    Raises:
    ------
    InputError
        If an element of the labels is missing among the given ones.
    """
    if given is None:
        return fit_references(labels)
    missing = sorted({int(z) for z in labels.batch.numbers} - set(given))
    if missing:
        names = ", ".join(chemical_symbol(z) for z in missing)
        raise InputError(
            f"expected a reference energy for every element, got none for {names}; "
            "add it, or leave all out to have them fitted"
        )
    return dict(given)


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
