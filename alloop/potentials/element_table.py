"""A table of one value per element, for the elements a potential was trained on."""

from collections.abc import Mapping

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.units import Floats

_LAST = 118  # the heaviest atomic number


class ElementTable:
    """A number per element (eV, say), looked up for all atoms of a batch at once."""

    def __init__(self, values: Mapping[int, float]) -> None:
        """Make the table; raise ValueError for a number that is no atomic number."""
        if not all(1 <= z <= _LAST for z in values):
            raise ValueError(f"expected atomic numbers, got {sorted(values)}")
        self.values = {int(z): float(values[z]) for z in sorted(values)}
        self._table = np.full(max(self.values, default=0) + 1, np.nan)
        self._table[list(self.values)] = list(self.values.values())

    def per_atom(self, batch: Batch) -> Floats:
        """Return the value of each atom (atoms,).

        Raises InputError for an element without one.
        """
        last = len(self._table) - 1
        values: Floats = self._table[np.minimum(batch.numbers, last)]
        unknown = np.isnan(values) | (batch.numbers > last)
        if unknown.any():
            raise self._untrained_error(np.unique(batch.numbers[unknown]).tolist())
        return values

    def per_frame(self, batch: Batch) -> Floats:
        """Return the sum over the atoms of each frame (frames,)."""
        sums = np.bincount(
            batch.frame_index, self.per_atom(batch), minlength=len(batch)
        )
        return np.asarray(sums, dtype=np.float64)

    def _untrained_error(self, numbers: list[int]) -> InputError:
        unknown = ", ".join(chemical_symbol(z) for z in numbers)
        trained = ", ".join(chemical_symbol(z) for z in self.values) or "none"
        return InputError(
            "expected frames of the elements that the model was trained on "
            f"({trained}), got {unknown}; train it on labels with {unknown} first"
        )
