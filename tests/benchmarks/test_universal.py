"""The rows of the benchmark of universal potentials."""

from argparse import Namespace
from dataclasses import replace

from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from benchmarks.accuracy.universal import (
    Job,
    make_jobs,
    row_trainer,
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
