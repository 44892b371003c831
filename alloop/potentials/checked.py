"""A potential that is called for one system after another: checked, and compiled."""

import warnings

from alloop.core.batch import Batch, same_molecules
from alloop.core.roles import Potential
from alloop.core.species import Domain


class CheckedPotential:
    """A potential with the domain that it was trained on.

    New molecules outside it raise InputError, and allowed ones that are not in it give
    a warning; positions and cells are not checked. domain: None for no check. compile:
    compile the potential for each new system of molecules.
    """

    def __init__(
        self, potential: Potential, domain: Domain | None, *, compile: bool = False
    ) -> None:
        self.potential, self.domain, self.compile = potential, domain, compile
        self.fast = potential  # in the form for the last batch
        self._last: Batch | None = None

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch, checked; `fast` is the potential for it.

        A batch of the same molecules as the last one shares its arrays, by which
        compiled code recognises it.
        """
        if self._last is not None and same_molecules(batch, self._last):
            return self._last.with_cells(batch.positions, batch.cells)
        if self.domain is not None:
            self.domain.require(batch)
            strange = self.domain.strange(batch)
            if strange is not None:
                warnings.warn(strange, stacklevel=3)
        self.fast = self._compiled(batch) if self.compile else self.potential
        self._last = batch
        return batch

    def _compiled(self, batch: Batch) -> Potential:
        from alloop.potentials.compiled import compiled_for

        return compiled_for(self.potential, batch)[0]
