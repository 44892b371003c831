"""The five replaceable parts of the loop. Read this file first.

A frame is made by MD (on a Potential), scored (Scorer), selected (Selector), labelled
(Labeller), stored and learned from (Trainer). Each role is a Protocol: pass any object
that has the methods; there is nothing to register and no base class. `alloop.testing`
has the checks that every implementation must pass. What is done next is decided by a
function that can be replaced too, see `alloop.loop.policy.Policy`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from alloop.core.arrays import AnyArray, Place
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import (
    Candidate,
    Label,
    Predictions,
    TrainingData,
    Unlabelled,
)
from alloop.core.units import Floats


@runtime_checkable
class Potential(Protocol):
    """A model that gives energies, forces and, if asked, per-atom descriptors."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) in eV and forces -dE/dx (atoms, 3) in eV/Å."""
        ...


@runtime_checkable
class AtomwisePotential(Potential, Protocol):
    """A Potential whose energies are sums over atoms."""

    def atom_energies(self, batch: Batch) -> Floats:
        """Return the energies of atoms (atoms,) in eV, which sum to the frames'."""
        ...


@runtime_checkable
class DipolarPotential(Potential, Protocol):
    """A Potential that gives dipole moments where they are asked for."""

    def dipoles(self, batch: Batch) -> Floats | None:
        """Return the dipoles (frames, 3) of molecules in e Å about the origin.

        None where a frame is periodic.
        """
        ...


@runtime_checkable
class DevicePotential(Potential, Protocol):
    """A Potential that also takes and gives arrays of a device, which stay there.

    MD on it keeps positions, velocities, guards and, for a DeviceScorer, scores there
    for a whole piece. A batch whose positions and cells lie there gives predictions
    that do; one of numpy's arrays gives numpy's.
    """

    def place(self, array: AnyArray) -> Any:
        """Return a copy of numpy's array on the device, of the same type of number."""
        ...


Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
ReadPotential: TypeAlias = Callable[[bytes], Potential]


class Retrain(Protocol):
    """Another training of the potential that a scorer is fitted to."""

    def __call__(self, number: int, share: float = 1.0) -> Potential:
        """Return a potential trained on a random share of the same labels.

        number: from 1 on; it names the random streams of the training.
        """
        ...


@runtime_checkable
class FittedScorer(Protocol):
    """A function from predictions to one surprise per frame; larger: less trusted.

    It is stored with the potential that it was fitted to, as one generation.
    """

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return the surprise (frames,).

        predictions: of the generation's potential, with descriptors if it has some.
        """
        ...

    def arrays(self) -> Arrays:
        """Return named arrays, from which `Scorer.restore` makes this scorer again."""
        ...


@runtime_checkable
class DeviceScorer(FittedScorer, Protocol):
    """A FittedScorer that also scores predictions which lie on a device."""

    def placed(self, place: Place) -> FittedScorer:
        """Return the scorer of predictions there, with its own arrays moved there."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A kind of surprise, fitted anew to the potential of each generation."""

    def fit(
        self, potential: Potential, learned: Batch, heldout: Batch, retrain: Retrain
    ) -> FittedScorer:
        """Return the scorer of a potential that was just trained.

        learned: frames that it was trained on. heldout: frames that no training sees;
        the threshold of surprise is taken from these afterwards. retrain: trains
        another potential in the same way.
        """
        ...

    def restore(self, arrays: Arrays, read_potential: ReadPotential) -> FittedScorer:
        """Return the scorer that gave these arrays; ValueError where they do not fit.

        read_potential: reads a potential from the bytes of its checkpoint
        (`alloop.models.checkpoint.checkpoint_to_bytes`).
        """
        ...


@runtime_checkable
class MemberScorer(Protocol):
    """A Scorer that tells beforehand what it will ask `retrain` for.

    These trainings then run side by side, where workers are free.
    """

    @property
    def retrained(self) -> Mapping[int, float]:
        """The share of the labels by the number of each further training."""
        ...


@runtime_checkable
class Selector(Protocol):
    """A rule that picks the few candidates worth a label."""

    def select(
        self,
        candidates: Sequence[Candidate],
        landmarks: Floats,
        quota: int,
        rng: np.random.Generator,
        threshold: float | None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, best first.

        landmarks: (frames, features) mean descriptors of frames that the model was
        trained on; chosen candidates should differ from these. threshold: surprise
        above which a frame is not trusted; None where it is not calibrated, and where
        the surprise of candidates is replaced by their worth at the expensive level.
        """
        ...


@runtime_checkable
class Labeller(Protocol):
    """A method to label one frame at one level; failures are returned, never raised."""

    def label(self, frame: Frame) -> Label | Unlabelled:
        """Return the label, or the reason why there is none."""
        ...


@runtime_checkable
class Trainer(Protocol):
    """A method that makes a potential from labels."""

    def train(
        self, data: TrainingData, parent: "Potential | None", seed: int
    ) -> tuple["Potential", dict[str, Any]]:
        """Return the trained potential and a JSON-able history of the training."""
        ...


class ExplorerSettings(Protocol):
    """The settings of an explorer beside MD, as far as the loop knows them."""

    @property
    def share(self) -> float:
        """The share of a round's labels of flagged frames."""

    @property
    def steps(self) -> int:
        """The MD steps on each walker of a round; 0 where it moves none."""
