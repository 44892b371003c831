"""Delta learning: a network learns what the expensive level adds to the cheap one.

The baseline of Bukharin et al., ICML 2023, Eq. 4 (Ramakrishnan et al., J. Chem. Theory
Comput. 11, 2087, 2015). It needs labels of both levels at the same geometries, and a
cheap label of every frame that it predicts.
"""

from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, Predictions
from alloop.core.roles import Potential
from alloop.potentials.repulsion import added
from alloop.training.label_changes import add_predictions, select_labels


@dataclass(frozen=True, slots=True, eq=False)
class DeltaPotential:
    """A potential E = E_cheap + ΔE, with forces likewise; implements Potential.

    cheap: the potential of the cheap level. Descriptors are those of the difference.
    """

    cheap: Potential
    difference: Potential

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å) and, where both give it, the stress."""
        base = self.cheap.predict(batch)
        difference = self.difference.predict(batch, descriptors=descriptors)
        return added(difference, base)


def label_difference(expensive: LabelSet, cheap: LabelSet) -> LabelSet:
    """Return expensive minus cheap labels (eV, eV/Å) of the frames that have both.

    The order is that of the expensive labels. Raises InputError where no frame has
    both.
    """
    place = {frame.id: row for row, frame in enumerate(cheap.batch.frames())}
    ids = [frame.id for frame in expensive.batch.frames()]
    both = np.array([row for row, i in enumerate(ids) if i in place], dtype=np.int64)
    if len(both) == 0:
        raise InputError(
            f"expected expensive frames with cheap labels too, got none of {len(ids)}; "
            "label the expensive frames at the cheap level"
        )
    cheap_labels = select_labels(cheap, np.array([place[ids[row]] for row in both]))
    predictions = Predictions(
        cheap_labels.energies, cheap_labels.forces, stress=cheap_labels.stress
    )
    return add_predictions(select_labels(expensive, both), predictions, -1.0)
