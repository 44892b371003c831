"""One row of the benchmark: an arm trained for its steps, and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.core.batch import Batch, take_atoms
from alloop.core.records import LabelSet, Predictions
from alloop.core.roles import Potential
from alloop.core.units import KCAL_PER_MOL
from alloop.generation import Generation, to_bytes
from alloop.training.graph_pool import force_scale
from alloop.training.label_changes import References, fit_references
from alloop.training.stages import Fidelity
from alloop.training.state_folder import StateKeeper
from alloop.training.trainers.stage_runner import StageRunner, training_history
from alloop.training.trainers.staged_trainer import best_training
from benchmarks.accuracy.asteroid.arms import Arm, digest, stage_runs, with_steps
from benchmarks.accuracy.asteroid.data import Sets, first_labels
from benchmarks.accuracy.asteroid.delta import DeltaPotential, label_difference
from benchmarks.accuracy.asteroid.rows import Row, machine


@dataclass(frozen=True, slots=True)
class Task:
    """The facts that all arms of one comparison share."""

    molecule: str
    network: str
    settings: tuple[tuple[str, Any], ...]
    ratio: int
    multi: bool
    level: str  # of the cheap labels; "" for the published ones
    steps: int  # of all stages of a row together

    @property
    def budget(self) -> str:
        """The length of a row in steps, whatever else the machine does."""
        return f"{self.steps} steps"

    @property
    def name(self) -> str:
        """The beginning of its rows' file names."""
        more = "-multi" * self.multi + f"-{self.level}" * bool(self.level)
        start = f"{self.molecule}-{self.network}-r{self.ratio}{more.replace('/', '_')}"
        return f"{start}-{self.budget.replace(' ', '')}"


@dataclass(frozen=True, slots=True)
class Job:
    """One row: everything that its result depends on, but for the machine."""

    task: Task
    name: str
    arm: Arm
    seed: int

    @property
    def facts(self) -> str:
        """A digest that differs between rows of one arm made in other ways."""
        return digest(self.arm, self.task.settings)

    @property
    def file(self) -> str:
        """The row's file, without its ending."""
        return f"{self.task.name}-{self.name}-{self.facts}-s{self.seed}"


@dataclass(frozen=True, slots=True, eq=False)
class StoredLabels:
    """Stored labels as a potential: delta learning's cheap level."""

    labels: Mapping[str, LabelSet]

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return the stored labels of these frames; there are no descriptors."""
        assert not descriptors
        for labels in self.labels.values():
            place = {frame.id: i for i, frame in enumerate(labels.batch.frames())}
            places = np.array([place.get(frame.id, -1) for frame in batch.frames()])
            if (places >= 0).all():
                atoms = take_atoms(labels.batch.offsets, places)
                return Predictions(labels.energies[places], labels.forces[atoms])
        raise KeyError("expected frames of one set, got others")


def train_arm(
    job: Job, sets: Sets, keeper: StateKeeper | None = None
) -> tuple[Row, bytes]:
    """Train an arm; return its row and the bytes of its model file.

    With a keeper, a training that was killed goes on, and stages that the keeper has
    from another row are not run again.
    """
    runner = _stage_runner(job, sets, keeper)
    arm = with_steps(job.arm, job.task.steps)
    path = best_training(runner, arm.stages, arm.weighed)
    history = {
        k: v for k, v in training_history(path, runner.scale).items() if k != "bias"
    }
    potential = runner.final_potential(path)
    model = add_cheap_level(potential, job.arm, sets)
    return {
        **_row_facts(job),
        "steps": _steps(arm),
        "cpu_seconds": sum(history["cpu_seconds"]),
        "left_out": dict(sets.left_out),
        "stopping": error(model, sets.stopping),
        "choosing": error(model, sets.choosing),
        "test": None,
        "stages": [repr(stage) for stage in arm.stages],
        "history": history,
        **machine(),
    }, to_bytes(Generation(potential, None, None, facts=_row_facts(job)))[1]


def test_error(job: Job, model: Potential, sets: Sets) -> float:
    """Return the error of a kept model on the test set, kcal/mol/Å."""
    return error(add_cheap_level(model, job.arm, sets), sets.test)


def error(potential: Potential, labels: LabelSet) -> float:
    """Return the mean absolute force component, kcal/mol/Å."""
    return mean_error([potential], labels)


def mean_error(potentials: Sequence[Potential], labels: LabelSet) -> float:
    """Return the error of the mean of the potentials' forces, kcal/mol/Å."""
    forces = [potential.predict(labels.batch).forces for potential in potentials]
    return float(np.abs(np.mean(forces, axis=0) - labels.forces).mean()) / KCAL_PER_MOL


def _steps(arm: Arm) -> int:
    """Return the steps of all stages, those that several γ repeat counted as often."""
    return sum(n * x.steps for n, x in zip(stage_runs(arm), arm.stages, strict=True))


def _row_facts(job: Job) -> Row:
    return {
        "molecule": job.task.molecule,
        "network": job.task.network,
        "settings": dict(job.task.settings),
        "ratio": job.task.ratio,
        "multi": job.task.multi,
        "level": job.task.level,
        "budget": job.task.budget,
        "arm": job.name,
        "facts": job.facts,
        "seed": job.seed,
        "expensive": job.arm.expensive,
        "gammas": job.arm.gammas,
        "batch": job.arm.stages[-1].schedule.batch,
        "lr": job.arm.stages[0].schedule.lr,
        "weight_decay": job.arm.stages[0].schedule.weight_decay,
        "optimiser": job.arm.stages[-1].schedule.optimiser,
    }


def add_cheap_level(network: Potential, arm: Arm, sets: Sets) -> Potential:
    """Return the potential of the expensive level: with delta learning, the sum."""
    return DeltaPotential(StoredLabels(sets.twins), network) if arm.delta else network


def _stage_runner(job: Job, sets: Sets, keeper: StateKeeper | None) -> StageRunner:
    expensive = first_labels(sets.expensive, job.arm.expensive)
    held_out = sets.choosing
    if job.arm.delta:
        expensive = label_difference(expensive, sets.twins["expensive"])
        held_out = label_difference(held_out, sets.twins["choosing"])
    labels: dict[Fidelity, LabelSet] = {"cheap": sets.cheap, "expensive": expensive}
    references: dict[Fidelity, References] = {
        level: fit_references(label_set) for level, label_set in labels.items()
    }
    return StageRunner(
        kind=job.task.network,
        settings=dict(job.task.settings),
        labels=labels,
        references=references,
        held_out=held_out,
        scale=force_scale(expensive),
        parent=None,
        least=0.3,
        seed=job.seed,
        keeper=keeper,
    )
