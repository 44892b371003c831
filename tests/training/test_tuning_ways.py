"""Ways of fine-tuning on a small MACE model that knows molecules."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet, TrainingData
from alloop.training.label_changes import select_labels
from alloop.training.replay import Replay
from alloop.training.stages import Adapters, Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential
from tests.models.universal.mace_trained import FILE, labels, molecules

MACE = {"path": str(FILE)}
NOTHING = LabelSet.of([], [], [])


@cache
def target() -> tuple[LabelSet, LabelSet]:
    """HF/def2-SVP labels of methanol: 12 frames to learn, and others."""
    pool = molecules()
    own = np.flatnonzero(pool.molecules == pool.names.index("CH3OH"))
    both = pool.label_set("expensive", own)
    rows = np.arange(len(both))
    return select_labels(both, rows[:12]), select_labels(both, rows[12:])


@cache
def others() -> tuple[LabelSet, LabelSet]:
    """What the model knows, without methanol: frames to replay, and others."""
    every = labels(molecules(), known=True)
    sizes, formula = every.batch.sizes, 6
    rows = np.flatnonzero(sizes < formula)[:40]
    return select_labels(every, rows[:20]), select_labels(every, rows[20:])


def force_error(potential: Any, truth: LabelSet) -> float:
    return prediction_errors(potential.predict(truth.batch), truth).force_mae


def tuned(share: float = 0.0, **options: Any) -> tuple[Any, dict[str, Any]]:
    stages = standard_stages(25, Schedule(3e-3, 3, warmup=5, compile=False))
    trainer = UniversalTrainer(StagedTrainer("mace", MACE, stages, **options))
    if share:
        trainer = trainer.replaying(Replay(others()[0].batch, share))
    return trainer.train(TrainingData(NOTHING, target()[0]), None, 0)


def test_the_model_knows_molecules_that_it_has_not_learned_from() -> None:
    unseen = labels(molecules(), known=False)
    own = untrained_potential("mace", MACE, labels(molecules(), known=True))
    assert force_error(own, unseen) < 0.1 * np.abs(unseen.forces).mean()


def test_replay_keeps_what_fine_tuning_forgets() -> None:
    taught, held = target()
    before = force_error(untrained_potential("mace", MACE, taught), held)
    naive, _ = tuned()
    replaying, history = tuned(0.4)
    assert force_error(naive, held) < 0.8 * before
    assert force_error(replaying, held) < 0.8 * before
    _, unseen = others()
    known = untrained_potential("mace", MACE, unseen)
    errors = [
        force_error(x.covering(unseen.batch), unseen) for x in (known, replaying, naive)
    ]
    assert errors[0] < errors[1] < errors[2]
    assert history["after/force_mae"][0] == pytest.approx(
        history["replayed/force_mae"], rel=1e-3
    )


def test_adapters_learn_with_a_fraction_of_the_weights() -> None:
    taught, held = target()
    before = force_error(untrained_potential("mace", MACE, taught), held)
    few, _ = tuned(adapters=Adapters(2, 2.0))
    assert force_error(few, held) < 0.9 * before
