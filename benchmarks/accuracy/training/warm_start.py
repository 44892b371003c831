"""Errors of generations trained from the last one's network, or from scratch.

    python -m benchmarks.accuracy.training.warm_start --data DIR [--molecule M]
        [--seeds N] [--work FOLDER] [--quick] [--json FILE]

DIR holds md17_ccsd/MOLECULE.npz (MD17 and MD17@CCSD(T), sgdml.org). Labels come as in a
campaign: four generations on 50, 100, 150 and 200 CCSD(T) labels with five times as
many DFT ones, each trained in the two stages and the 4000 steps of `kind: asteroid`.
scratch: a new network each time; parent: pretraining goes on from the generation
before; parent, half: the same with half the steps. Errors are mean absolute force
components on 100 other frames, kcal/mol/Å: median (range) over the seeds. Rows in
--work survive a kill.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.potentials.learned import LearnedPotential
from alloop.training.fit import cpu_seconds
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.stages import STEPS, Stage, asteroid_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from benchmarks.accuracy.asteroid.data import (
    MD17,
    PER_RATIO,
    Sets,
    first_labels,
    load,
    molecule_name,
)
from benchmarks.accuracy.asteroid.job import error
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)

GENERATIONS = (50, 100, 150, 200)  # expensive labels
CHEAP = 5  # cheap labels for each of them
QUICK = 100  # one step instead of so many


@dataclass(frozen=True)
class StartMode:
    """A way to train later generations: the share of the steps, and from where."""

    name: str
    warm: bool
    share: float = 1.0


START_MODES = (
    StartMode("scratch", False),
    StartMode("parent", True),
    StartMode("parent, half", True, 0.5),
)


def train_generations(sets: Sets, mode: StartMode, seed: int, fewer: int) -> Row:
    """Return errors (kcal/mol/Å) and CPU seconds of all generations in turn."""
    judges = joined_labels(sets.stopping, sets.choosing)
    parent: LearnedPotential | None = None
    errors, seconds = [], []
    for count in GENERATIONS:
        trainer = StagedTrainer("painn", {}, tuple(_stages(mode, parent, fewer)))
        began = cpu_seconds()
        parent, _ = trainer.train(_labels(sets, count), parent, seed)
        seconds.append(cpu_seconds() - began)
        errors.append(error(parent, judges))
    return {"errors": errors, "seconds": seconds}


def _stages(
    mode: StartMode, parent: LearnedPotential | None, fewer: int
) -> Iterator[Stage]:
    share = mode.share if parent else 1.0
    for stage in asteroid_stages(STEPS, weights="uniform"):
        start = "parent" if mode.warm and stage.start == "scratch" else stage.start
        steps = max(2, round(share * stage.steps / fewer))
        yield replace(stage, start=start, steps=steps)


def _labels(sets: Sets, count: int) -> TrainingData:
    def first(labels: LabelSet, limit: int) -> LabelSet:
        return select_labels(labels, np.arange(limit))

    return TrainingData(first(sets.cheap, CHEAP * count), first(sets.expensive, count))


def error_rows(done: Rows, keys: dict[StartMode, list[str]]) -> list[dict[str, Any]]:
    """Return for each way the error by generation, and CPU seconds of all but one."""
    rows = []
    for mode, names in keys.items():
        errors = zip(*(done[name]["errors"] for name in names), strict=True)
        columns = {
            str(n): _format_range(x) for n, x in zip(GENERATIONS, errors, strict=True)
        }
        spent = median(sum(done[name]["seconds"][1:]) for name in names)
        rows.append({"from": mode.name, **columns, "CPU s after the first": spent})
    return rows


def _format_range(values: tuple[float, ...]) -> str:
    return "{median:.3f} ({low:.3f} to {high:.3f})".format(**median_range(values))


def main() -> None:
    """Train what is missing, show, keep."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--molecule", default="ethanol", help=f"{MD17} or a file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/warm"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fewer = QUICK if options.quick else 1
    try:
        most = max(GENERATIONS)
        sets = load(options.data, options.molecule, CHEAP * most // PER_RATIO)
        first_labels(sets.expensive, most)
    except InputError as error:
        raise SystemExit(str(error)) from error
    done = Rows(options.work / f"{molecule_name(options.molecule)}-{fewer}.jsonl")
    keys = {
        mode: [f"{mode.name}/{i}" for i in range(options.seeds)] for mode in START_MODES
    }
    for seed in range(options.seeds):
        for mode, names in keys.items():
            if names[seed] not in done:
                done[names[seed]] = train_generations(sets, mode, seed, fewer)
                show(f"{names[seed]}: {done[names[seed]]['errors'][-1]:.3f} kcal/mol/Å")
    rows = error_rows(done, keys)
    show(make_table(f"Force error by expensive labels, {options.molecule}", rows))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
