"""The five replaceable parts of the loop. Read this file first.

A frame is made by MD (on a Potential), scored (Scorer), selected (Selector), labelled
(Labeller), stored and learned from (Trainer). Each role is a Protocol: pass any object
that has the method; there is nothing to register and no base class. `alloop.testing`
has the checks that every implementation must pass.
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
    """A model that gives energies, forces and, if asked, per-atom descriptors."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) in eV and forces -dE/dx (atoms, 3) in eV/Å."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A function from predictions to one surprise per frame; larger: less trusted."""

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return the surprise (frames,); it may need `predictions.descriptors`."""
        ...


@runtime_checkable
class Selector(Protocol):
    """A rule that picks the few candidates worth a label."""

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,
        quota: int,
        rng: np.random.Generator,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, best first.

        known: (frames, features) mean descriptors of frames that are labelled already;
        chosen candidates should differ from these.
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
