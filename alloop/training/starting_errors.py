"""Errors of a pretrained potential before fine-tuning takes its first step.

Of the potential as it comes, with reference energies fitted to the labels, and of what
training starts from. Without them a wrong unit, head or reference looks like a
training that did not succeed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alloop.core.errors import InputError
from alloop.core.prediction_errors import ErrorSummary, prediction_errors
from alloop.core.records import LabelSet
from alloop.models.network import Network
from alloop.potentials.learned import LearnedPotential

AS_IT_COMES = "as it comes"
FITTED = "references fitted"
START = "start of training"
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
        least = _LEAST_ENERGY * self.atoms
        if start.energy_mae > _ENERGY * best.energy_mae + least:
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
    own = {z: pretrained.references.get(z, 0.0) for z in elements}
    fitted = {z: fitted.get(z, 0.0) for z in elements}
    potentials = {
        AS_IT_COMES: LearnedPotential(pretrained, own),
        FITTED: LearnedPotential(pretrained, fitted),
        START: start,
    }
    rows = {
        name: prediction_errors(potential.predict(labels.batch), labels)
        for name, potential in potentials.items()
    }
    return StartingErrors(rows, float(labels.batch.sizes.mean()))
