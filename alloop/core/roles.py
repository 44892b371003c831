"""The five replaceable parts of the loop. Read this file first.

A frame is born in MD (on a Potential), scored (Scorer), selected (Selector), labelled
(Labeller), stored, learned from (Trainer). Each role is a Protocol: pass an object that
has the method, there is nothing to register and no base class. `alloop.testing` holds
the laws that every implementation keeps.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

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
    """Maps frames to energies and forces, and to per-atom descriptors where asked."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Energies (frames,) eV and forces (atoms, 3) eV/Å, forces = -dE/dx."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Maps predictions to one surprise per frame; larger means less trusted."""

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Surprise (frames,); needs `predictions.descriptors` if the scorer says so."""
        ...


@runtime_checkable
class Selector(Protocol):
    """Picks the few candidates worth a label."""

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,
        quota: int,
        rng: np.random.Generator,
    ) -> tuple[int, ...]:
        """Indices of at most `quota` candidates, best first, unlike `known` ones.

        known: (frames, features) mean descriptors of frames that are labelled already.
        """
        ...


@runtime_checkable
class Labeller(Protocol):
    """Labels one frame at one level; failure is a value, never an exception."""

    def label(self, frame: Frame) -> Label | Unlabelled:
        """The label, or the reason why there is none."""
        ...


@runtime_checkable
class Trainer(Protocol):
    """Makes a potential from labels."""

    def train(
        self, data: TrainingData, parent: "Potential | None", seed: int
    ) -> tuple["Potential", dict[str, Any]]:
        """The trained potential and a JSON-able history of the training."""
        ...
