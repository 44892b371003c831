"""The rows of the benchmark of universal potentials."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, Predictions
from alloop.core.units import KCAL_PER_MOL
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from benchmarks.accuracy.asteroid.job import mean_error
from benchmarks.accuracy.universal.few_labels import (
    Job,
    make_jobs,
    row_trainer,
    seed_groups,
    summary_rows,
)

JOB = Job("ethanol", "painn", (), "cheap", 50, 100.0, 0, 2.5e-3, 4e-4)


def test_each_row_has_a_name_of_its_own_and_only_pretrained_ones_have_zero_steps() -> (
    None
):
    given = Namespace(
        seed=[0, 1],
        labels=[10, 50],
        network=["so3lr", "painn"],
        settings={},
        arm=None,
        seconds=300.0,
        lr=None,
        fine=None,
    )
    jobs = list(make_jobs(given, "ethanol"))
    assert len({job.file for job in jobs}) == len(jobs)
    untrained = [job for job in jobs if job.arm == "zero-shot"]
    assert {job.network for job in untrained} == {"so3lr"}
    assert len(untrained) == 2  # one seed is enough
    rates = {(job.network, job.arm): job.lr for job in jobs}
    assert rates["so3lr", "cheap"] == 2e-3 != rates["so3lr", "direct"]
    assert replace(JOB, lr=1e-3).file != JOB.file


def test_arms_share_the_time_and_no_loss_sees_approximate_energies() -> None:
    cheap = row_trainer(JOB, approximate=True)
    assert isinstance(cheap, StagedTrainer)
    first, last = cheap.stages
    assert (first.schedule.seconds, last.schedule.seconds) == (75.0, 25.0)
    assert first.schedule.energy == 0.0 < last.schedule.energy
    assert last.schedule.lr == 4e-4
    pretrained = row_trainer(replace(JOB, network="so3lr"), True)
    assert isinstance(pretrained, UniversalTrainer)
    stages = pretrained.staged.stages
    assert [stage.schedule.optimiser for stage in stages] == ["muon", "adamw"]
    direct = row_trainer(replace(JOB, network="so3lr", arm="direct"), True)
    assert isinstance(direct, UniversalTrainer)
    (stage,) = direct.staged.stages
    assert (stage.on, stage.schedule.seconds) == ("expensive", 100.0)


def test_the_table_has_the_mean_and_range_of_the_seeds() -> None:
    facts = {name: getattr(JOB, name) for name in Job.__slots__}
    rows = [
        {**facts, "stopping": x, "choosing": x + 0.2, "test": None} for x in (1.0, 2.0)
    ]
    (row,) = summary_rows(rows)
    assert (row["seeds"], row["test"]) == (2, None)
    assert (row["validation"], row["low"], row["high"]) == (1.6, 1.1, 2.1)


def test_networks_that_differ_in_their_seeds_alone_are_judged_together() -> None:
    other = replace(JOB, labels=10)
    untrained = [replace(JOB, arm="zero-shot", seed=seed) for seed in (0, 1)]
    assert seed_groups([JOB, other, *untrained, replace(JOB, seed=2)]) == [
        [JOB, replace(JOB, seed=2)]
    ]


class Constant:
    """A potential with the same force on every component."""

    def __init__(self, force: float) -> None:
        self.force = force

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return them, whatever the frames."""
        assert not descriptors
        forces = np.full(batch.positions.shape, self.force)
        return Predictions(np.zeros(len(batch)), forces, None)


def test_errors_of_opposite_sign_cancel_in_the_mean() -> None:
    batch = pack_frames([Frame(np.array([1, 8]), np.eye(2, 3))])
    labels = LabelSet(batch, np.zeros(1), np.zeros((2, 3)))
    both = [Constant(0.3), Constant(-0.1)]
    assert mean_error(both, labels) == pytest.approx(0.1 / KCAL_PER_MOL)
