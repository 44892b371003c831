"""Further potentials of a generation, which scorers ask for."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Retrain
from alloop.evaluation import TrainingInputs, train_generation
from alloop.potentials.analytic import Morse
from alloop.scores.calibrate import ScorerSettings
from alloop.scores.qresidual import QResidual, QResidualScorer
from alloop.training.state_folder import StateFolder
from alloop.training.trainers.pairwise import PairwiseTrainer

FORMULAS = ("H2O", "H2O", "H2O", "H2O", "H2O", "CH4")


@dataclass
class Observed:
    """Trains pair functions, and notes seeds, labels and folders of states."""

    calls: list[tuple[int, TrainingData, Path | None]] = field(default_factory=list)
    folder: Path | None = None

    def saving_to(self, keeper: StateFolder) -> "Observed":
        return Observed(self.calls, keeper.folder)

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[Any, dict[str, Any]]:
        self.calls.append((seed, data, self.folder))
        return PairwiseTrainer().train(data, parent, seed)


@dataclass(frozen=True)
class TwoMore(QResidualScorer):
    """The Q-residual, after two more trainings."""

    def fit(
        self, potential: Potential, learned: Batch, heldout: Batch, retrain: Retrain
    ) -> QResidual:
        retrain(1, 0.5)
        retrain(2, 0.5)
        return super().fit(potential, learned, heldout, retrain)


def labels(seed: int, factor: float) -> LabelSet:
    rng = np.random.default_rng(seed)
    frames = []
    for formula in FORMULAS:
        frame = from_atoms(molecule(formula))
        moved = frame.positions + rng.normal(scale=0.05, size=frame.positions.shape)
        frames.append(replace(frame, positions=moved))
    truth = Morse().predict(pack_frames(frames))
    return LabelSet(pack_frames(frames), factor * truth.energies, factor * truth.forces)


def test_members_learn_a_share_of_all_formulas_on_random_streams_of_their_own(
    tmp_path: Path,
) -> None:
    data = TrainingData(cheap=labels(1, 0.9), expensive=labels(1, 1.0))
    trainer = Observed()
    scoring = ScorerSettings(TwoMore(components=2))
    inputs = TrainingInputs(
        data, pack_frames(()), scoring, seed=5, name="train/3", folder=tmp_path
    )
    train_generation(trainer, inputs)
    (seed, first, folder), *members = trainer.calls
    assert first is data
    assert len({seed, *(x for x, _, _ in members)}) == 3
    assert len({folder, *(x for _, _, x in members)}) == 3
    parts = []
    for _, part, _ in members:
        ids = [frame.id for frame in part.expensive.batch.frames()]
        assert ids == [frame.id for frame in part.cheap.batch.frames()]
        sizes = sorted(len(frame) for frame in part.expensive.batch.frames())
        assert sizes == [3, 3, 3, 5]  # half of five H2O, rounded up, and the only CH4
        parts.append(ids)
    assert parts[0] != parts[1]
    again = Observed()
    train_generation(again, inputs)
    assert [x for x, _, _ in again.calls] == [x for x, _, _ in trainer.calls]
