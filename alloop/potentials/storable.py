"""The protocol of potentials that a campaign can store."""

from typing import Protocol, runtime_checkable

from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.models.checkpoint import Checkpoint


@runtime_checkable
class Storable(Protocol):
    """A Potential that can be stored; `alloop.potentials.restore` restores it."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) eV and forces (atoms, 3) eV/Å, forces = -dE/dx."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        ...
