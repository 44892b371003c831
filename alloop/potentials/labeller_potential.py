"""Any labeller as a potential: MD, relaxation and normal modes at a level of theory."""

import numpy as np

from alloop.core.batch import Batch
from alloop.core.dipoles import stack_dipoles
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label, Predictions, Unlabelled
from alloop.core.roles import Labeller
from alloop.core.stress import stack_stress
from alloop.core.units import Floats


class LabelFailed(Exception):
    """The error of a labeller that gave no label; `unlabelled` holds the reason."""

    def __init__(self, unlabelled: Unlabelled) -> None:
        super().__init__(unlabelled)
        self.unlabelled = unlabelled

    def __str__(self) -> str:
        why = self.unlabelled
        return f"{why.failure.name}: {why.message or why.failure.value}"


class LabellerPotential:
    """A potential that labels each frame in turn. It has no descriptors."""

    def __init__(self, labeller: Labeller) -> None:
        self.labeller = labeller

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å) and stress at the labeller's level.

        The stress is that of cells at levels that give it, None without any.

        Raises LabelFailed where a frame gets no label, InputError where descriptors are
        asked for.
        """
        if descriptors:
            raise InputError(
                "expected a potential with descriptors, got a level of theory; "
                "score with a learned potential"
            )
        labels = [self._label(frame) for frame in batch.frames()]
        return Predictions(
            energies=np.array([label.energy for label in labels], dtype=np.float64),
            forces=np.concatenate([np.zeros((0, 3)), *(x.forces for x in labels)]),
            stress=stack_stress([x.stress for x in labels]),
            dipoles=_whole(stack_dipoles([x.details for x in labels])),
        )

    def _label(self, frame: Frame) -> Label:
        label = self.labeller.label(frame)
        if isinstance(label, Unlabelled):
            raise LabelFailed(label)
        return label


def _whole(dipoles: Floats | None) -> Floats | None:
    """Return the dipoles, None where a frame has none."""
    return dipoles if dipoles is not None and np.isfinite(dipoles).all() else None
