"""The labels that a stage is trained on, changed and weighted.

All label sets here are less their level's references.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.bias import best_scale, frame_bias, scaled_bias
from alloop.core.records import LabelSet, Predictions
from alloop.core.units import Floats
from alloop.models.network import Network
from alloop.potentials.learned import LearnedPotential
from alloop.training.bias_weights import (
    Gamma,
    effective_size,
    guarded_weights,
)
from alloop.training.label_changes import add_predictions, mixed_labels, scaled_labels
from alloop.training.stages import Fidelity, Stage


@dataclass(frozen=True, slots=True, eq=False)
class BiasWeighing:
    """The weighting of cheap frames by their bias.

    bias (cheap frames,) in eV/Å, gamma the γ in eV/Å used, effective the effective
    share of the frames.
    """

    bias: Floats
    gamma: float
    effective: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetworks:
    """The latest networks of each role that a training has made so far.

    teacher: the last one trained on expensive labels, against which cheap ones are
    compared. pupil: the last one trained on cheap labels alone. change: the network
    that a stage on differences has trained.
    """

    teacher: Network | None = None
    pupil: Network | None = None
    change: Network | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StageLabels:
    """The labels that a stage is trained on, and their weights (frames,) of mean 1."""

    labels: LabelSet
    weights: Floats
    weighing: BiasWeighing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StageData:
    """The data from which the labels of stages are made.

    labels by level, scale the networks' unit in eV, γ, and the least share of cheap
    frames that must stay effective.
    """

    labels: Mapping[Fidelity, LabelSet]
    scale: float
    gamma: Gamma
    least: float

    def stage_labels(self, stage: Stage, known: TrainedNetworks) -> StageLabels:
        """Return the labels of a stage, given the networks trained before it."""
        expensive = self.labels["expensive"]
        if stage.labels == "difference" and known.pupil is not None:
            expensive = add_predictions(
                expensive, self.network_predictions(known.pupil, expensive), -1.0
            )
        if stage.on == "expensive":
            return StageLabels(expensive, np.ones(len(expensive)))
        cheap = self._cheap(stage, known)
        weights, weighing = self._weights(stage, known, cheap)
        if stage.on == "both":
            both, weights = mixed_labels(cheap, expensive, stage.mix, weights)
            return StageLabels(both, weights, weighing)
        return StageLabels(cheap, weights, weighing)

    def network_predictions(self, network: Network, labels: LabelSet) -> Predictions:
        """Return a network's predictions for labelled frames, without references."""
        nothing = dict.fromkeys(labels.batch.numbers.tolist(), 0.0)
        return LearnedPotential(network, nothing, self.scale).predict(labels.batch)

    def _cheap(self, stage: Stage, known: TrainedNetworks) -> LabelSet:
        cheap = self.labels["cheap"]
        if stage.labels == "scaled" and known.teacher is not None:
            forces = self.network_predictions(known.teacher, cheap).forces
            return scaled_labels(cheap, best_scale(forces, cheap.forces))
        if stage.labels == "corrected" and known.change is not None:
            return add_predictions(cheap, self.network_predictions(known.change, cheap))
        if stage.labels == "corrected" and known.teacher and known.pupil:
            without = add_predictions(
                cheap, self.network_predictions(known.pupil, cheap), -1.0
            )
            return add_predictions(
                without, self.network_predictions(known.teacher, cheap)
            )
        return cheap

    def _weights(
        self, stage: Stage, known: TrainedNetworks, cheap: LabelSet
    ) -> tuple[Floats, BiasWeighing | None]:
        if stage.weights == "uniform" or known.teacher is None:
            return np.ones(len(cheap)), None
        forces = self.network_predictions(known.teacher, cheap).forces
        measure = scaled_bias if stage.weights == "scaled" else frame_bias
        bias = measure(forces, cheap.forces, cheap.batch.offsets)
        weights, value = guarded_weights(bias, self.gamma, self.least)
        share = effective_size(weights) / len(weights)
        return weights, BiasWeighing(bias, value, share)
