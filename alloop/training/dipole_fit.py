"""The fit of a readout of dipole moments to the features of a trained network.

Ridge regression, level after level: first to the cheap labels, then from there to the
expensive ones, so that few of these suffice. The penalty is chosen by cross-validation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.core.units import Floats, Integers
from alloop.potentials.dipoles import DipoleHead, DipolePotential, dipole_columns
from alloop.potentials.learned import LearnedPotential
from alloop.training.label_changes import select_labels

FEWEST = 10  # frames with a dipole
_PENALTIES = 10.0 ** np.arange(-8, 1)  # by frame, of columns with unit deviation
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class FittedDipoles:
    """A potential with a readout of dipoles.

    frames: those of the last level that it learned from; error: mean absolute error of
    a component on frames left out in turn, e Å.
    """

    potential: DipolePotential
    frames: int
    error: float


def fit_dipoles(
    potential: LearnedPotential, levels: Sequence[LabelSet], seed: int
) -> FittedDipoles | None:
    """Return the potential with a readout that fits the dipoles of these labels.

    levels: in turn, each beginning with the readout of the one before; a level with
    fewer than `FEWEST` dipoles is left out. None where all are.
    """
    sets = [x for x in map(_with_dipoles, levels) if len(x) >= FEWEST]
    if not sets:
        return None
    elements = tuple(sorted({int(z) for x in sets for z in np.unique(x.batch.numbers)}))
    weights, scales, error = np.zeros(0), np.zeros(0), 0.0
    for labels in sets:
        columns, origin = dipole_columns(potential, labels.batch, elements)
        if not weights.size:
            weights = np.zeros(columns.shape[2])
            spread = columns.std(axis=(0, 1))
            scales = np.where(spread > 0.0, spread, 1.0)
        if labels.dipoles is None:
            raise TypeError("expected labels with dipoles, got none")
        rest = labels.dipoles - origin - columns @ weights
        change, error = _ridge(columns / scales, rest, seed)
        weights = weights + change / scales
    head = DipoleHead(elements, weights)
    return FittedDipoles(DipolePotential(potential, head), len(sets[-1]), error)


def _with_dipoles(labels: LabelSet) -> LabelSet:
    if labels.dipoles is None:
        return select_labels(labels, np.zeros(0, dtype=np.int64))
    rows = np.isfinite(labels.dipoles).all(axis=1) & ~labels.batch.pbc.any(axis=1)
    return select_labels(labels, np.flatnonzero(rows))


def _ridge(columns: Floats, values: Floats, seed: int) -> tuple[Floats, float]:
    """Return weights, and the error on frames that were left out.

    columns (frames, 3, weights), values (frames, 3).
    """
    order = random_stream(seed, "dipoles").permutation(len(values))
    folds = np.array_split(order, _FOLDS)
    sums = np.array([_fold_errors(columns, values, fold) for fold in folds])
    errors = sums.sum(axis=0) / len(values)
    best = int(np.argmin(errors))
    weights = _solutions(columns, values)[:, best]
    return weights, float(errors[best])


def _fold_errors(columns: Floats, values: Floats, fold: Integers) -> Floats:
    """Return the errors of a fold's frames, summed, for each penalty."""
    rest = np.setdiff1d(np.arange(len(values)), fold)
    weights = _solutions(columns[rest], values[rest])  # (weights, penalties)
    off = columns[fold] @ weights - values[fold][:, :, None]
    total: Floats = np.abs(off).mean(axis=1).sum(axis=0)
    return total


def _solutions(columns: Floats, values: Floats) -> Floats:
    """Return the weights (weights, penalties) of ridge regression."""
    flat = columns.reshape(-1, columns.shape[2])
    squares, axes = np.linalg.eigh(flat.T @ flat)
    along = axes.T @ (flat.T @ values.ravel())
    penalties = _PENALTIES * len(values)
    out: Floats = axes @ (
        along[:, None] / (np.maximum(squares, 0)[:, None] + penalties)
    )
    return out
