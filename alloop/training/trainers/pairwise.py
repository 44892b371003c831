"""A Trainer for pair potentials: ASTEROID's stages, each solved by least squares.

It takes milliseconds and no torch: for toy campaigns, and to study the stages.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.prediction_errors import frame_bias
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.core.stress import virial_per_atom
from alloop.core.units import Floats
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.training.bias_weights import (
    DEFAULT,
    Gamma,
    effective_size,
    guarded_weights,
)
from alloop.training.label_changes import level_references, without_references


@dataclass(frozen=True, slots=True)
class PairwiseTrainer:
    """A trainer of pair potentials on forces and energies; implements Trainer.

    pretrain False leaves the cheap labels out (standard training); without a gamma
    their weights are uniform. energy is ρ of ASTEROID's Eq. 1, with squared errors;
    ridge holds the coefficients near zero, pull (fine-tuning) near those of the cheap
    level. stress: weight of the squared errors of virials per atom, of cells whose
    labels have a stress.
    """

    radial: int = 12
    cutoff: float = 5.0
    pretrain: bool = True
    gamma: Gamma | None = DEFAULT
    least: float = 0.3
    energy: float = 0.05
    ridge: float = 1e-6
    pull: float = 1e-4
    stress: float = 0.1

    def train(
        self,
        data: TrainingData,
        parent: Potential | None,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> tuple[PairwisePotential, dict[str, Any]]:
        """Return the potential and its training history.

        The potential is that of the expensive level, or of the cheap one if there is no
        other. parent and seed are not used.
        """
        began = time.process_time()
        references = {
            "cheap": level_references(data.cheap),
            "expensive": level_references(data.expensive),
        }
        cheap = without_references(data.cheap, references["cheap"])
        expensive = without_references(data.expensive, references["expensive"])
        basis = self._basis(data)
        coefficients, history = self._stages(basis, cheap, expensive)
        atoms = {**references["cheap"], **references["expensive"]}
        coefficients[: len(basis.elements)] += [atoms[z] for z in basis.elements]
        history["cpu_seconds"] = [time.process_time() - began]
        return PairwisePotential(basis, coefficients), history

    def _basis(self, data: TrainingData) -> PairBasis:
        elements = np.union1d(data.cheap.batch.numbers, data.expensive.batch.numbers)
        if len(elements) == 0:
            raise InputError(
                "expected labels to fit, got none; label some frames first"
            )
        return PairBasis(tuple(int(z) for z in elements), self.radial, self.cutoff)

    def _stages(
        self, basis: PairBasis, cheap: LabelSet, expensive: LabelSet
    ) -> tuple[Floats, dict[str, Any]]:
        if len(expensive) == 0:
            coefficients = self._solve(basis, cheap, np.ones(len(cheap)))
            return coefficients, {"stages": ["pretraining"]}
        uniform = np.ones(len(expensive))
        if len(cheap) == 0 or not self.pretrain:
            coefficients = self._solve(basis, expensive, uniform)
            return coefficients, {"stages": ["standard"]}
        stages, weights = ["pretraining", "fine-tuning"], np.ones(len(cheap))
        history: dict[str, Any] = {}
        if self.gamma is not None:
            teacher = self._solve(basis, expensive, uniform)
            weights, history = self._weigh(basis, teacher, cheap, self.gamma)
            stages = ["teacher", *stages]
        pretrained = self._solve(basis, cheap, weights)
        coefficients = self._solve(basis, expensive, uniform, pretrained)
        return coefficients, {"stages": stages, **history}

    def _weigh(
        self, basis: PairBasis, teacher: Floats, cheap: LabelSet, gamma: Gamma
    ) -> tuple[Floats, dict[str, Any]]:
        forces = PairwisePotential(basis, teacher).predict(cheap.batch).forces
        bias = frame_bias(forces, cheap.forces, cheap.batch.offsets)
        weights, value = guarded_weights(bias, gamma, self.least)
        share = effective_size(weights) / len(weights)
        return weights, {"bias": bias.tolist(), "gamma": value, "effective": share}

    def _solve(
        self,
        basis: PairBasis,
        labels: LabelSet,
        weights: Floats,
        near: Floats | None = None,
    ) -> Floats:
        """Minimise (1 - ρ) <w ΔF²> + ρ <w ΔE²> + λ abs(c - c0)²; return c (size,)."""
        rows, targets = self._rows(basis, labels, weights)
        start = np.zeros(basis.size) if near is None else near
        hold = self.ridge if near is None else self.pull
        A = np.concatenate([rows, np.sqrt(hold) * np.eye(basis.size)])
        b = np.concatenate([targets - rows @ start, np.zeros(basis.size)])
        change, *_ = np.linalg.lstsq(A, b, rcond=None)
        out: Floats = start + change
        return out

    def _rows(
        self, basis: PairBasis, labels: LabelSet, weights: Floats
    ) -> tuple[Floats, Floats]:
        design = basis.design_matrix(labels.batch)
        atoms, frames = len(labels.batch.numbers), len(labels)
        f = np.sqrt(
            (1.0 - self.energy) * weights[labels.batch.frame_index] / (3 * atoms)
        )
        e = np.sqrt(self.energy * weights / frames)
        forces = (f[:, None, None] * design.forces).reshape(3 * atoms, basis.size)
        rows = [forces, e[:, None] * design.energies]
        targets = [(f[:, None] * labels.forces).ravel(), e * labels.energies]
        if labels.stress is not None and self.stress > 0.0:
            sizes, stressed = labels.batch.sizes, np.isfinite(labels.stress).all(axis=1)
            s = np.sqrt(self.stress * weights / (6 * max(int(stressed.sum()), 1)))[
                stressed
            ]
            virial = virial_per_atom(labels.batch, labels.stress)[stressed]
            virials = design.virials[stressed] / sizes[stressed][:, None, None]
            rows.append((s[:, None, None] * virials).reshape(-1, basis.size))
            targets.append((s[:, None] * virial).ravel())
        return np.concatenate(rows), np.concatenate(targets)
