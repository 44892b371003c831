"""Errors of a pretrained potential before fine-tuning, and what it forgot after it.

Before the first step: of the potential as it comes, with reference energies fitted to
the labels, and of what training starts from. Without them a wrong unit, head or
reference looks like a training that did not succeed.

After the last one: on the replayed frames, and where atoms come close, of which the
labels of a campaign say nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alloop.core.batch import Batch, evenly_thinned
from alloop.core.errors import InputError
from alloop.core.prediction_errors import ErrorSummary, prediction_errors
from alloop.core.records import LabelSet
from alloop.core.units import Floats
from alloop.models.network import Network
from alloop.potentials.learned import LearnedPotential

AS_IT_COMES = "as it comes"
FITTED = "references fitted"
START = "start of training"
REPLAYED = "replayed frames"
OWN_HEAD = "by their own head"
CONTACTS = "close contacts"
_PRESSED = 0.8  # times the distances
_CONTACT_FRAMES = 20
_ENERGY, _FORCE = 10.0, 5.0  # times the errors with fitted references, ...
_LEAST_ENERGY, _LEAST_FORCE = 0.5, 0.1  # ... eV an atom and eV/Å, at least


@dataclass(frozen=True, slots=True)
class StartingErrors:
    """Errors before the first step, by the name of the potential.

    atoms: the mean number of atoms in a frame.
    """

    rows: Mapping[str, ErrorSummary]
    atoms: float

    @property
    def history(self) -> dict[str, Any]:
        """Flat JSON for the history of a training; eV a frame, and eV/Å."""
        rows = self.rows.values()
        return {
            "before/name": list(self.rows),
            "before/frames": [row.frames for row in rows],
            "before/energy_mae": [row.energy_mae for row in rows],
            "before/energy_spread": [row.energy_spread for row in rows],
            "before/force_mae": [row.force_mae for row in rows],
        }

    def require_close_start(self) -> None:
        """Raise InputError where training starts far worse than the potential is."""
        best, start = self.rows[FITTED], self.rows[START]
        if start.force_mae > _FORCE * best.force_mae + _LEAST_FORCE:
            raise InputError(
                f"expected training to start near the potential as it comes, whose "
                f"forces err by {best.force_mae:.3g} eV/Å, got a start that errs by "
                f"{start.force_mae:.3g} eV/Å; begin with `start: scratch`, or another "
                "model"
            )
        margin = _LEAST_ENERGY * self.atoms
        if start.energy_mae > _ENERGY * best.energy_mae + margin:
            raise InputError(
                f"expected training to start near the potential as it comes, whose "
                f"energies err by {best.energy_mae:.3g} eV a frame once references are "
                f"fitted, got a start that errs by {start.energy_mae:.3g} eV; "
                "check the units of energies, and leave `references:` out"
            )


def starting_errors(
    pretrained: Network,
    start: LearnedPotential,
    fitted: Mapping[int, float],
    labels: LabelSet,
) -> StartingErrors:
    """Return the errors on labels, at least one, which training does not learn from.

    pretrained: the network as it comes; fitted: references fitted to labels less its
    energies; start: what training starts from, with its references.
    """
    elements = sorted({int(z) for z in labels.batch.numbers})
    published = {z: pretrained.references.get(z, 0.0) for z in elements}
    fitted = {z: fitted.get(z, 0.0) for z in elements}
    potentials = {
        AS_IT_COMES: LearnedPotential(pretrained, published),
        FITTED: LearnedPotential(pretrained, fitted),
        START: start,
    }
    rows = {
        name: prediction_errors(potential.predict(labels.batch), labels)
        for name, potential in potentials.items()
    }
    return StartingErrors(rows, float(labels.batch.sizes.mean()))


def forgetting(
    tuned: LearnedPotential,
    original: LearnedPotential,
    frames: Batch,
    replayed: LabelSet | Batch | None = None,
    own_error: float | None = None,
) -> dict[str, Any]:
    """Return what fine-tuning changed elsewhere, as flat JSON; forces in eV/Å.

    after/name: the sets, `replayed frames` where there are some and `close contacts`,
    frames whose distances are all 0.8 times those of `frames`; after/frames; after/
    force_mae: of the tuned potential; after/force_before: of the original; after/
    force_size: the mean size of the forces. Errors are those against the labels of
    replayed frames, and where there are none against the original, whose own is then 0.
    own_error: of the head that replayed frames have for themselves, a row of its own.
    """
    sets: dict[str, LabelSet | Batch] = {CONTACTS: pressed_frames(frames)}
    if replayed is not None:
        sets = {REPLAYED: replayed, **sets}
    columns: dict[str, list[Any]] = {
        key: [] for key in ("name", "frames", "force_mae", "force_before", "force_size")
    }
    for name, rows in sets.items():
        batch = rows if isinstance(rows, Batch) else rows.batch
        elements = set(batch.numbers.tolist())
        if not elements <= set(tuned.references):
            continue
        said = LearnedPotential(
            original.frozen_network, dict.fromkeys(elements, 0.0), original.scale
        ).predict(batch)
        truth = said.forces if isinstance(rows, Batch) else rows.forces
        forces = tuned.predict(batch).forces
        values = (
            *(name, len(batch), _mean_size(forces - truth)),
            *(_mean_size(said.forces - truth), _mean_size(truth)),
        )
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        if name == REPLAYED and own_error is not None:
            row = (OWN_HEAD, len(batch), own_error, values[3], values[4])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return {f"after/{key}": column for key, column in columns.items()}


def pressed_frames(frames: Batch) -> Batch:
    """Return up to 20 of the frames, all distances and cells 0.8 times as long."""
    every = np.arange(len(frames))
    part = frames.select(every[evenly_thinned(len(frames), _CONTACT_FRAMES)])
    return replace(
        part, positions=_PRESSED * part.positions, cells=_PRESSED * part.cells
    )


def _mean_size(forces: Floats) -> float:
    """Return the mean absolute component; unlabelled ones are NaN and left out."""
    return float(np.nanmean(np.abs(forces)))
