"""Does a third level below the two pay, at equal CPU time of labels?

    python -m benchmarks.accuracy.training.ladder --data DIR [--molecule h2co]
        [--seeds N] [--expensive N ...] [--middle N ...] [--work FOLDER] [--quick]

DIR holds h2co/ and md17_ccsd/. GFN2-xTB labels (2000 frames, which cost next to
nothing), DFT labels (--middle) and CCSD(T) labels (--expensive) of formaldehyde or
ethanol. A network is trained on one level after another: xTB and CCSD(T), DFT and
CCSD(T), and all three. 400 DFT labels cost as much as one CCSD(T) label, and are paid
by as many fewer of them. All arms take 5000 steps, of which the last 1000 are
fine-tuning on CCSD(T) at its lower rate. `ladder` trains on DFT at the full rate,
`ladder, gentle` at that of fine-tuning, `ladder, long` for 3000 of the 4000 steps
instead of 1500. Errors on 500 other frames: mean absolute force component in meV/Å, and
energies less their mean error in meV. Needs `alloop[xtb]`; rows in --work survive a
kill.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.training.bias_weights import DEFAULT
from alloop.training.graph_pool import force_scale
from alloop.training.label_changes import select_labels
from alloop.training.stages import FINE_TUNING, SCHEDULE, Stage
from alloop.training.trainers.stage_runner import StageRunner, TrainingState
from benchmarks.accuracy.asteroid.data import h2co_labels, label_at_level, load
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

LOWEST, TEST, PER_LABEL = 2000, 500, 400  # frames, and DFT labels for one CCSD(T)
STEPS, FINE_STEPS = 4000, 1000


@dataclass(frozen=True, slots=True)
class Arm:
    """A ladder: the shares of the steps before fine-tuning by level, and DFT's rate."""

    shares: Mapping[str, float]
    lr: float = SCHEDULE.lr


ARMS: Mapping[str, Arm] = {
    "xtb": Arm({"xtb": 1.0}),
    "dft": Arm({"dft": 1.0}),
    "ladder": Arm({"xtb": 0.625, "dft": 0.375}),
    "ladder, gentle": Arm({"xtb": 0.625, "dft": 0.375}, FINE_TUNING),
    "ladder, long": Arm({"xtb": 0.25, "dft": 0.75}),
}


@dataclass(frozen=True)
class Comparison:
    """The labels of a molecule and seed, and the trainings on them."""

    options: Namespace
    seed: int

    @cached_property
    def labels(self) -> dict[str, LabelSet]:
        """Labels by level, each in an order of the seed, and test frames."""
        if self.options.molecule == "h2co":
            dft = h2co_labels(self.options.data, "b3lyp")
            expensive = h2co_labels(self.options.data, "ccsd(t)")
            order = random_stream(self.seed, "ladder").permutation(len(dft))
            pool = order[TEST:]
            most = max(self.options.expensive)
            return {
                "test": select_labels(expensive, order[:TEST]),
                "expensive": select_labels(expensive, pool[:most]),
                "dft": select_labels(dft, pool[most:]),
            }
        sets = load(self.options.data, self.options.molecule, 20)
        order = random_stream(self.seed, "ladder").permutation(len(sets.cheap))
        return {
            "test": sets.test,
            "expensive": sets.expensive,
            "dft": select_labels(sets.cheap, order),
        }

    @cached_property
    def lowest(self) -> LabelSet:
        """GFN2-xTB labels of the first frames that DFT may have."""
        dft = self.labels["dft"]
        return label_at_level(list(dft.batch.frames())[:LOWEST], "gfn2-xtb")

    def errors(self, name: str, middle: int, count: int) -> Row:
        """Return the errors of an arm whose labels cost as much as `count` CCSD(T)."""
        arm, test = ARMS[name], self.labels["test"]
        paid = round(middle / PER_LABEL) if "dft" in arm.shares else 0
        expensive = _first(self.labels["expensive"], count - paid)
        levels = {"xtb": self.lowest, "dft": _first(self.labels["dft"], middle)}
        state: TrainingState | None = None
        for level, share in arm.shares.items():
            lr = arm.lr if state is not None else SCHEDULE.lr
            stage = Stage(
                level,
                "cheap",
                self._steps(share * STEPS),
                "scratch" if state is None else "previous",
                schedule=replace(SCHEDULE, lr=lr),
            )
            state = self._run(state, stage, levels[level], expensive)
        fine = Stage(
            "fine-tuning",
            "expensive",
            self._steps(FINE_STEPS),
            schedule=replace(SCHEDULE, lr=FINE_TUNING),
        )
        runner = self._runner(expensive, expensive)
        assert state is not None
        state = runner.run_stages(state, [fine], DEFAULT)
        said = runner.final_potential(state).predict(test.batch)
        errors = prediction_errors(said, test)
        return {"force": 1e3 * errors.force_mae, "energy": 1e3 * errors.energy_spread}

    def _steps(self, steps: float) -> int:
        return max(1, round(steps / (100 if self.options.quick else 1)))

    def _run(
        self,
        state: TrainingState | None,
        stage: Stage,
        labels: LabelSet,
        expensive: LabelSet,
    ) -> TrainingState:
        runner = self._runner(labels, expensive)
        start = state or TrainingState(runner.new_network("pretraining"))
        return runner.run_stages(start, [stage], DEFAULT)

    def _runner(self, labels: LabelSet, expensive: LabelSet) -> StageRunner:
        runner = unweighted_runner(
            labels, expensive, self.seed, network="tensor-painn", scaled_by="cheap"
        )
        return replace(runner, scale=force_scale(self.labels["dft"]))


def _first(labels: LabelSet, count: int) -> LabelSet:
    return select_labels(labels, np.arange(count))


def _table(rows: Rows, options: Namespace) -> Iterator[Row]:
    for count in options.expensive:
        for middle in options.middle:
            for arm in ARMS:
                keys = _keys(options, arm, middle, count)
                done = [rows[key] for key in keys if key in rows]
                if done:
                    yield {
                        "cost of": count,
                        "dft": middle if "dft" in ARMS[arm].shares else "",
                        "levels": arm,
                        "seeds": len(done),
                        "forces, meV/Å": mean_range([x["force"] for x in done]),
                        "energies, meV": mean_range([x["energy"] for x in done]),
                    }


def _keys(options: Namespace, arm: str, middle: int, count: int) -> Sequence[str]:
    frames = middle if "dft" in ARMS[arm].shares else 0
    stem = f"{options.molecule}/{arm}/{frames}/{count}"
    return [f"{stem}/{seed}" for seed in range(options.seeds)]


def main() -> None:
    """Train what is missing, and show the table."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True)
    add("--molecule", choices=("h2co", "ethanol"), default="h2co")
    add("--seeds", type=int, default=3)
    add("--expensive", type=int, nargs="+", default=[25, 50])
    add("--middle", type=int, nargs="+", default=[100, 400])
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--work", type=Path, default=Path("ladder"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.work / "ladder.jsonl")
    for seed in range(options.seeds):
        comparison = Comparison(options, seed)
        for count in options.expensive:
            for middle in options.middle:
                for arm in options.arms:
                    key = _keys(options, arm, middle, count)[seed]
                    if key not in rows:
                        rows[key] = comparison.errors(arm, middle, count)
                        show(f"{key}: {rows[key]}")
    table = list(_table(rows, options))
    write_json(options.json, {"rows": table})
    show(make_table(f"{options.molecule}: levels below CCSD(T)", table))


if __name__ == "__main__":
    main()
