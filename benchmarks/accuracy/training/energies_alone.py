"""Expensive labels with forces, or more of them without, at equal label cost.

    python -m benchmarks.accuracy.training.energies_alone --data DIR [--cheap LEVEL]
        [--seeds N] [--labels N ...] [--work FOLDER] [--quick] [--json FILE]

DIR holds h2co/. A network is pretrained on 500 cheap labels of formaldehyde (--cheap:
b3lyp or mp2) and fine-tuned to CCSD(T): on N labels with forces, in 1000 and in 3000
steps, on 18 N labels with an energy alone, which cost as much
(`benchmarks.labels.gradient_cost`), and on half of both. The fine-tuning of energies is
alloop's: six times the steps at a tenth of the rate. Errors on 500 other frames: mean
absolute force component in meV/Å, and energies less their mean error in meV. Rows in
--work survive a kill.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.training.bias_weights import DEFAULT
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.stages import FINE_TUNING, SCHEDULE, Stage
from alloop.training.trainers.stage_runner import StageRunner, TrainingState
from alloop.training.trainers.staged_trainer import unweighted_stages
from benchmarks.accuracy.asteroid.data import h2co_labels
from benchmarks.accuracy.training.averaging import unweighted_runner
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    mean_range,
    show,
    write_json,
)

RATIO = 18  # of the cost of a label with forces to that of its energy alone
CHEAP, TEST = 500, 500  # frames
PRETRAINING, STEPS = 3000, 1000
FINE = Stage(
    "fine-tuning", "expensive", STEPS, schedule=replace(SCHEDULE, lr=FINE_TUNING)
)
ARMS = ("pretraining alone", "forces", "forces, 3000 steps", "energies", "half of both")


@dataclass(frozen=True)
class Comparison:
    """The labels of one seed, and the trainings on them; fewer: divides all steps."""

    folder: Path
    cheap_level: str
    seed: int
    fewer: int = 1

    @cached_property
    def labels(self) -> dict[str, LabelSet]:
        """Cheap labels, test frames, and the expensive pool in its order."""
        cheap = h2co_labels(self.folder, self.cheap_level)
        expensive = h2co_labels(self.folder, "ccsd(t)")
        order = random_stream(self.seed, "energies").permutation(len(cheap))
        return {
            "test": select_labels(expensive, order[:TEST]),
            "cheap": select_labels(cheap, order[TEST : TEST + CHEAP]),
            "pool": select_labels(expensive, order[TEST + CHEAP :]),
        }

    @cached_property
    def pretrained(self) -> TrainingState:
        """The network that all arms fine-tune."""
        runner = self._runner(self._pool_part(0, 1))
        stage = Stage("pretraining", "cheap", PRETRAINING // self.fewer, "scratch")
        start = TrainingState(runner.new_network("pretraining"))
        return runner.run_stages(start, [stage], DEFAULT)

    def errors(self, arm: str, count: int) -> Row:
        """Return the errors of an arm whose labels cost as much as `count` forces."""
        labels, stage = self._arm(arm, count)
        test = self.labels["test"]
        runner = self._runner(labels)
        state = self.pretrained
        if stage is not None:
            stage = replace(stage, steps=max(1, stage.steps // self.fewer))
            state = runner.run_stages(state, [stage], DEFAULT)
        said = runner.final_potential(state).predict(test.batch)
        errors = prediction_errors(said, test)
        return {"force": 1e3 * errors.force_mae, "energy": 1e3 * errors.energy_spread}

    def _arm(self, arm: str, count: int) -> tuple[LabelSet, Stage | None]:
        forces = self._pool_part(0, count)
        energies = _without_forces(self._pool_part(0, RATIO * count))
        (slow,) = unweighted_stages([FINE])
        half = count // 2
        beside = _without_forces(self._pool_part(half, half + RATIO * (count - half)))
        return {
            "pretraining alone": (forces, None),
            "forces": (forces, FINE),
            "forces, 3000 steps": (forces, replace(FINE, steps=3 * STEPS)),
            "energies": (energies, slow),
            "half of both": (joined_labels(self._pool_part(0, half), beside), slow),
        }[arm]

    def _pool_part(self, first: int, last: int) -> LabelSet:
        return select_labels(self.labels["pool"], np.arange(first, last))

    def _runner(self, expensive: LabelSet) -> StageRunner:
        return unweighted_runner(
            self.labels["cheap"],
            expensive,
            self.seed,
            network="tensor-painn",
            scaled_by="cheap",
        )


def _without_forces(labels: LabelSet) -> LabelSet:
    return replace(labels, forces=np.full_like(labels.forces, np.nan))


def _table(rows: Rows, cheap: str, counts: list[int], seeds: int) -> Iterator[Row]:
    for arm in ARMS:
        for count in counts:
            there = [
                rows[key]
                for seed in range(seeds)
                if (key := f"{cheap}/{arm}/{count}/{seed}") in rows
            ]
            if there:
                yield {
                    "labels": arm,
                    "cost of": count,
                    "forces, meV/Å": mean_range([x["force"] for x in there]),
                    "energies, meV": mean_range([x["energy"] for x in there]),
                }


def main() -> None:
    """Train what is missing, and show the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cheap", default="b3lyp", choices=("b3lyp", "mp2"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--work", type=Path, default=Path("energies_alone"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.work / "energies_alone.jsonl")
    for seed in range(options.seeds):
        fewer = 100 if options.quick else 1
        comparison = Comparison(options.data, options.cheap, seed, fewer)
        for count in options.labels:
            for arm in ARMS:
                key = f"{options.cheap}/{arm}/{count}/{seed}"
                if key not in rows:
                    rows[key] = comparison.errors(arm, count)
                    show(f"{key}: {rows[key]}")
    table = list(_table(rows, options.cheap, options.labels, options.seeds))
    write_json(options.json, {"rows": table})
    show(make_table(f"Formaldehyde, {options.cheap} under CCSD(T)", table))


if __name__ == "__main__":
    main()
