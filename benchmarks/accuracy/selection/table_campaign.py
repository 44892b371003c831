"""A campaign on a frozen pool: labels come from a table, candidates from the pool.

Everything else is the campaign's own code: the policy, the quotas, the training, the
scorer, the selection and the driver. Only two tasks differ: a label is looked up, and
exploration scores the pool's unlabelled frames instead of moving walkers.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alloop.config import Setup
from alloop.config.checks.validate import known_kinds
from alloop.config.load import parse_campaign
from alloop.config.yaml_text import dump_yaml, merge_trees
from alloop.core.batch import pack_frames
from alloop.core.prediction_errors import largest_force_errors, prediction_errors
from alloop.core.records import (
    Candidate,
    Label,
    TrainingData,
    Walker,
)
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.driver.driver import Driver
from alloop.driver.opening import campaign_opening
from alloop.driver.own_parts import OwnParts
from alloop.generation import from_bytes
from alloop.history.record_index import LabelIndex
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Explore,
    LabelFrame,
    Prepare,
    Train,
    TrainPart,
)
from alloop.loop.state import LoopState
from alloop.md.frame_collector import ScoredFrames
from alloop.training.stages import Stage
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.workers.pools import InlinePool
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.tasks import TaskResult, perform_command
from benchmarks.accuracy.labelled_pool import LabelledPool
from benchmarks.accuracy.selection.arms import Arm


@dataclass(slots=True, eq=False)
class TableCampaign:
    """A campaign on a pool, which answers its own commands; run it once.

    prices: by fidelity, of each frame's label (frames,). errors: a row for each
    generation, with labels, price and errors on the test sets. asked: all commands to
    label, in order. parts: errors after short trainings on parts of the labels, eV/Å,
    by the command's name.
    """

    pool: LabelledPool
    setup: Setup
    arm: Arm
    prices: Mapping[str, Floats]
    errors: list[dict[str, Any]] = field(default_factory=list)
    asked: list[LabelFrame] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _twin: Potential | None = None

    def run(self) -> list[dict[str, Any]]:
        """Run to the end of the budget; return the rows of all generations."""
        worker = self.setup.worker_settings
        driver = Driver(
            archive=self,
            label_index=LabelIndex(),
            rules=self.setup.rules,
            pool=InlinePool(worker, self._perform),
            levels=self.setup.levels,
        )
        state = driver.run(LoopState(), (campaign_opening(self.setup, OwnParts()),))
        if state.finished is None or state.broken:
            raise RuntimeError(f"the campaign ended early: {state.finished}")
        return self.errors

    def labelled_frames(self) -> set[str]:
        """Return the ids of all frames with a label so far."""
        return {command.frame.id for command in self.asked}

    def append(self, record: e.Turn) -> int:  # noqa: ARG002 - nothing is resumed
        """Keep no journal."""
        return 0

    def put_model(self, model_id: str, blob: bytes) -> None:
        """Keep the blob of a model in memory."""
        self._blobs[model_id] = blob

    def model(self, model_id: str) -> bytes:
        """Return the blob of a model."""
        return self._blobs[model_id]

    def _perform(
        self, command: Command, data: TaskData, worker: WorkerSettings
    ) -> TaskResult:
        match command:
            case Prepare():
                return TaskResult(self._prepared(command))
            case LabelFrame():
                return TaskResult(self._label(command))
            case Explore():
                return TaskResult(self._explored(command, data))
            case Train():
                result = perform_command(command, data, worker)
                self._judge(command, result)
                if self.arm.twin:
                    self._train_twin(data, worker)
                return result
            case TrainPart():
                part = perform_command(command, data, worker)
                assert isinstance(part.event, e.PartTrained)
                self.parts[command.name] = float(part.event.errors.mean())
                return part
            case _:
                raise TypeError(f"a pool has no answer to {command.name}")

    def _prepared(self, command: Prepare) -> e.Prepared:
        """Return random frames of the molecule, the same for all arms of a seed.

        They are among those that a campaign may begin with, where these are enough.
        """
        pool = self.pool
        places = pool.chosen[pool.molecules[pool.chosen] == command.molecule]
        first = places if pool.first is None else np.intersect1d(places, pool.first)
        places = first if len(first) >= command.seeds else places
        rng = random_stream(self.setup.seed, command.name)
        drawn = rng.choice(places, size=command.seeds, replace=False)
        seeds = tuple(self.pool.frames[int(i)] for i in drawn)
        return e.Prepared(command.name, command.molecule, command.frame, seeds, ())

    def _label(self, command: LabelFrame) -> e.Labelled:
        table = self.pool.tables[command.fidelity]
        index = self.pool.indices[command.frame.id]
        self.asked.append(command)
        label = Label(
            command.frame.id,
            command.level,
            float(table.energies[index]),
            table.forces[index],
            cpu_seconds=float(self.prices[command.fidelity][index]),
        )
        return e.Labelled(command.name, label)

    def _explored(self, command: Explore, data: TaskData) -> e.Explored:
        """Return the best of the pool's unlabelled frames, and random ones."""
        generation = from_bytes(data.model or b"")
        labelled = self.labelled_frames()
        pool = self.pool
        among = pool.plain if self.arm.plain else pool.chosen
        if among is None:
            raise ValueError(f"nobody knows which frames of {pool.name} are plain MD")
        free = np.array([i for i in among if pool.frames[i].id not in labelled])
        batch = pack_frames([pool.frames[i] for i in free])
        predictions = generation.predict(batch, descriptors=True)
        assert generation.scorer is not None
        surprise = generation.scorer.score(batch, predictions)
        worth = self.arm.worth(generation, pool, free, predictions, surprise)
        places = tuple(
            Walker(0, int(pool.molecules[i]), frame, np.zeros((len(frame), 3)))
            for i, frame in zip(free, batch.frames(), strict=True)
        )
        eligible = np.ones(len(free), dtype=np.bool_)
        scored = ScoredFrames(
            places, batch, predictions, worth, eligible, step=command.round
        )
        keep = len(free) if self.arm.whole else command.keep
        best = np.argsort(-worth, kind="stable")[:keep]
        rng = random_stream(self.setup.seed, command.name)
        drawn = rng.permutation(len(free))[: command.controls]
        walkers = tuple(
            replace(x, step=x.step + command.steps) for x in command.walkers
        )
        return e.Explored(
            round=command.round,
            batch=command.batch,
            piece=command.piece,
            walkers=walkers,
            candidates=tuple(
                self._against_twin(scored.candidate(int(i), "surprise")) for i in best
            ),
            controls=tuple(scored.candidate(int(i), "control") for i in drawn),
            scored=len(free),
        )

    def _train_twin(self, data: TaskData, worker: WorkerSettings) -> None:
        """Train on the cheap labels of the frames that have expensive ones."""
        assert data.data is not None
        staged = worker.trainer
        assert isinstance(staged, StagedTrainer)
        frames = data.data.expensive.batch.frames()
        indices = np.array([self.pool.indices[frame.id] for frame in frames])
        labels = TrainingData(
            self.pool.label_set("cheap", indices[:0]),
            self.pool.label_set("cheap", indices),
        )
        stage = Stage("twin", "expensive", self.arm.twin, start="scratch")
        trainer = replace(staged, stages=(stage,))
        self._twin, _ = trainer.train(labels, None, self.setup.seed)

    def _against_twin(self, candidate: Candidate) -> Candidate:
        """Return the candidate with the twin's forces, from which bias is measured."""
        if self._twin is None:
            return candidate
        forces = self._twin.predict(pack_frames([candidate.frame])).forces
        return replace(candidate, forces=forces)

    def _judge(self, command: Train, result: TaskResult) -> None:
        generation = from_bytes(result.blob or b"")
        paid = {(x.fidelity, self.pool.indices[x.frame.id]) for x in self.asked}
        counts: Counter[str] = Counter(fidelity for fidelity, _ in paid)
        row: dict[str, Any] = {"generation": command.generation, **counts}
        row["price"] = float(sum(self.prices[key][index] for key, index in paid))
        for name, indices in self.pool.tests.items():
            labels = self.pool.label_set("expensive", indices)
            predictions = generation.predict(labels.batch)
            errors = prediction_errors(predictions, labels)
            worst = largest_force_errors(
                labels.batch, predictions.forces, labels.forces
            )
            row[name] = {
                "force_mae": errors.force_mae,
                "force_rmse": errors.force_rmse,
                "energy_mae": errors.energy_spread,
                "worst_95": float(np.quantile(worst, 0.95)),
            }
        self.errors.append(row)


def pool_setup(
    pool: LabelledPool, settings: Mapping[str, Any], changes: Mapping[str, Any]
) -> Setup:
    """Return the setup of a campaign on a pool, with an arm's changes."""
    count = len(pool.names)
    tree: dict[str, Any] = {
        "name": pool.name,
        "start": [{"molecule": name} for name in pool.names],
        "levels": dict(pool.levels),
        "store": "unused.zarr",
        "validation": {"frames": 0, "examination": 0},
        "explore": {"walkers": count, "batch": count, "steps": 100, "shapes": None},
        "potential": {"kind": "painn"},  # of all rows, where an arm names no other
    }
    for part in (settings, changes):
        tree = merge_trees(tree, dict(part), known_kinds())
    return replace(parse_campaign(dump_yaml(tree), "."), start=pool.start)
