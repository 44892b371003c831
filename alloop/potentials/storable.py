"""What a campaign needs of a potential beyond `Potential`: that it can be stored."""

from typing import Protocol, runtime_checkable

from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.models.checkpoint import Checkpoint


@runtime_checkable
class Storable(Protocol):
    """A Potential that can be put away; `alloop.potentials.restore` brings it back."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Energies (frames,) eV and forces (atoms, 3) eV/Å, forces = -dE/dx."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Settings and tensors that rebuild this potential exactly."""
        ...
