"""Errors of several trainings averaged, beside one training and one twice as long.

    python -m benchmarks.accuracy.training.averaging --data DIR [--set NAME] [--seeds N]
        [--parts PART ...] [--work FOLDER] [--quick] [--json FILE]

DIR holds h2co/ and md17_ccsd/. As in a campaign there are few labels, drawn by the
seed: 400 cheap and 60 expensive ones, and the two stages of `kind: asteroid` with 3000
and 1000 steps. one: a single training; fine-tunings: two of one pretraining, with other
orders of the frames; branches: the last 1000 steps of pretraining are doubled too,
after 2000 at a constant rate; networks: two trainings that share nothing; double: one
training of 6000 and 2000 steps; tensor-painn, -double, -fourfold: a single training of
that network, whose steps cost half as much again, of 4000, 8000 and 16000 steps; -wide,
-wide-double: of 4000 and 8000 steps with 96 channels in place of 64. Two
networks are joined by the mean of their forces (twice the cost in MD) or of their
weights. steps: of all trainings; wall: on as many cores as there are networks. Errors
are mean absolute force components on other frames than those trained on (formaldehyde:
300 of the pool; MD17: validation frames), meV/Å: median (range) over the seeds.
Rows in --work survive a kill.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from alloop.core.errors import InputError
from alloop.core.levels import Fidelity
from alloop.core.records import LabelSet
from alloop.potentials.repulsion import ZBL
from alloop.training.bias_weights import DEFAULT
from alloop.training.fit import cpu_seconds
from alloop.training.graph_pool import force_scale
from alloop.training.label_changes import fit_references, joined_labels, select_labels
from alloop.training.stages import FINE_TUNING, SCHEDULE, Schedule, Stage
from alloop.training.trainers.stage_runner import StageRunner, TrainingState
from benchmarks.accuracy.asteroid.data import (
    MD17,
    PER_RATIO,
    first_labels,
    load,
    molecule_name,
)
from benchmarks.accuracy.labelled_pool import formaldehyde
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)

CHEAP, EXPENSIVE, JUDGES = 400, 60, 300  # frames
RATIO = 19  # of cheap MD17 frames, 950, of which the seed draws
QUICK = 100  # one step instead of so many
FINE = replace(SCHEDULE, lr=FINE_TUNING)
CONSTANT = replace(SCHEDULE, decay="wsd", hold=1.0 - 1e-7)


@dataclass(frozen=True)
class Comparison:
    """One seed's labels and the trainings on them; judge: frames to compute errors on.

    fewer: one step is taken instead of so many. network: its kind; channels: None for
    the usual ones.
    """

    cheap: LabelSet
    expensive: LabelSet
    judge: LabelSet
    seed: int
    fewer: int = 1
    network: str = "painn"
    channels: int | None = None

    def pretrained(self, seed: int, steps: int = 3000) -> TrainingState:
        """Return a new network, pretrained on the cheap labels."""
        start = TrainingState(self._runner(seed).new_network("pretraining"))
        return self._trained(
            start, "pretraining", seed=seed, steps=steps, schedule=SCHEDULE, on="cheap"
        )

    def fine_tuned(
        self, state: TrainingState, seed: int, steps: int = 1000
    ) -> TrainingState:
        """Return a network fine-tuned on the expensive labels; seed: of the order."""
        return self._trained(
            state, "fine-tuning", seed=seed, steps=steps, schedule=FINE, on="expensive"
        )

    @cached_property
    def shared(self) -> TrainingState:
        """The pretraining that all fine-tunings share."""
        return self.pretrained(self.seed)

    @cached_property
    def one(self) -> TrainingState:
        """The single training."""
        return self.fine_tuned(self.shared, 1000 * self.seed)

    def branch(self, trunk: TrainingState, number: int) -> TrainingState:
        """Return a network that left the trunk before the end of its pretraining."""
        seed = 10 * self.seed + number
        tip = self._trained(
            trunk, "branch", seed=seed, steps=1000, schedule=SCHEDULE, on="cheap"
        )
        return self.fine_tuned(tip, seed)

    def trunk(self) -> TrainingState:
        """Return a network after 2000 steps at a constant learning rate."""
        start = TrainingState(self._runner(self.seed).new_network("pretraining"))
        return self._trained(
            start, "trunk", seed=self.seed, steps=2000, schedule=CONSTANT, on="cheap"
        )

    def error(self, states: Sequence[TrainingState]) -> float:
        """Return the error of the mean of the networks' forces, meV/Å."""
        runner = self._runner(0)
        said = [runner.final_potential(x).predict(self.judge.batch) for x in states]
        forces = np.mean([each.forces for each in said], axis=0)
        return 1e3 * float(np.abs(forces - self.judge.forces).mean())

    def _trained(
        self,
        state: TrainingState,
        name: str,
        seed: int,
        steps: int,
        schedule: Schedule,
        on: Any,
    ) -> TrainingState:
        steps = max(2, steps // self.fewer)
        schedule = replace(schedule, compile=self.fewer == 1)
        stage = Stage(name, on, steps, schedule=schedule)
        return self._runner(seed).run_stages(state, [stage], DEFAULT)

    def _runner(self, seed: int) -> StageRunner:
        return unweighted_runner(
            self.cheap,
            self.expensive,
            seed,
            network=self.network,
            channels=self.channels,
        )


def unweighted_runner(
    cheap: LabelSet,
    expensive: LabelSet,
    seed: int,
    *,
    network: str,
    channels: int | None = None,
    scaled_by: Fidelity = "expensive",
) -> StageRunner:
    """Return a runner of stages on these labels, with the repulsion of alloop.

    channels: None for the usual ones; scaled_by: the level whose forces are the unit.
    """
    labels: dict[Fidelity, LabelSet] = {
        "cheap": ZBL.without(cheap),
        "expensive": ZBL.without(expensive),
    }
    return StageRunner(
        kind=network,
        settings={} if channels is None else {"channels": channels},
        labels=labels,
        references={level: fit_references(x) for level, x in labels.items()},
        held_out=None,
        scale=force_scale(labels[scaled_by]),
        parent=None,
        least=0.0,
        seed=seed,
        repulsion=ZBL,
    )


Part: TypeAlias = Callable[[Comparison], Row]


def mean_weights(states: Sequence[TrainingState]) -> TrainingState:
    """Return a state whose network has the mean of the networks' weights."""
    network = copy.deepcopy(states[0].network)
    weights = [state.network.state_dict() for state in states]
    network.load_state_dict(
        {
            name: torch.stack([each[name].double() for each in weights])
            .mean(dim=0)
            .to(first.dtype)
            for name, first in weights[0].items()
        }
    )
    return replace(states[0], network=network)


def single_training(comparison: Comparison) -> Row:
    """Return the error of one training."""
    return {"one": comparison.error([comparison.one])}


def fine_tunings(comparison: Comparison) -> Row:
    """Return errors of two fine-tunings of one pretraining."""
    other = comparison.fine_tuned(comparison.shared, 1000 * comparison.seed + 1)
    return _pair("fine-tunings", comparison, [comparison.one, other])


def branches(comparison: Comparison) -> Row:
    """Return errors of two trainings that share two thirds of their pretraining."""
    trunk = comparison.trunk()
    pair = [comparison.branch(trunk, number) for number in range(2)]
    return _pair("branches", comparison, pair)


def networks(comparison: Comparison) -> Row:
    """Return errors of two trainings that share nothing but their labels."""
    start = comparison.pretrained(comparison.seed + 100)
    other = comparison.fine_tuned(start, 1000 * comparison.seed + 50)
    return _pair("networks", comparison, [comparison.one, other])


def long_training(
    comparison: Comparison, name: str, factor: int, network: str, channels: int | None
) -> Row:
    """Return the error of one training of a network with so many times the steps."""
    longer = replace(comparison, network=network, channels=channels)
    start = longer.pretrained(comparison.seed, 3000 * factor)
    return {
        name: longer.error(
            [longer.fine_tuned(start, 1000 * comparison.seed, 1000 * factor)]
        )
    }


def _long(
    name: str, factor: int, network: str = "painn", channels: int | None = None
) -> Part:
    return partial(
        long_training, name=name, factor=factor, network=network, channels=channels
    )


def _pair(name: str, comparison: Comparison, pair: Sequence[TrainingState]) -> Row:
    return {
        f"{name}, each": [comparison.error([state]) for state in pair],
        f"{name}, mean forces": comparison.error(pair),
        f"{name}, mean weights": comparison.error([mean_weights(pair)]),
    }


PARTS: Mapping[str, Part] = {
    "one": single_training,
    "fine-tunings": fine_tunings,
    "networks": networks,
    "double": _long("double", 2),
    "branches": branches,
    "tensor-painn": _long("tensor-painn", 1, "tensor-painn"),
    "tensor-painn-double": _long("tensor-painn-double", 2, "tensor-painn"),
    "tensor-painn-fourfold": _long("tensor-painn-fourfold", 4, "tensor-painn"),
    "tensor-painn-wide": _long("tensor-painn-wide", 1, "tensor-painn", 96),
    "tensor-painn-wide-double": _long(
        "tensor-painn-wide-double", 2, "tensor-painn", 96
    ),
}
STEPS = {  # of all trainings, and of the longest way through them
    "one": (4000, 4000),
    "fine-tunings": (5000, 4000),
    "branches": (6000, 4000),
    "networks": (8000, 4000),
    "double": (8000, 8000),
    "tensor-painn": (4000, 4000),
    "tensor-painn-double": (8000, 8000),
    "tensor-painn-fourfold": (16000, 16000),
    "tensor-painn-wide": (4000, 4000),
    "tensor-painn-wide-double": (8000, 8000),
}


def draw_labels(
    data: Path, name: str, seed: int
) -> tuple[LabelSet, LabelSet, LabelSet]:
    """Return cheap, expensive and judging labels, drawn by the seed."""
    rng = np.random.default_rng(seed)
    if name == "formaldehyde":
        pool = formaldehyde(data)
        order = rng.permutation(pool.chosen)
        places = {
            "cheap": order[:CHEAP],
            "expensive": order[:EXPENSIVE],
            "judge": order[CHEAP : CHEAP + JUDGES],
        }
        return (
            pool.label_set("cheap", places["cheap"]),
            pool.label_set("expensive", places["expensive"]),
            pool.label_set("expensive", places["judge"]),
        )
    sets = load(data, name, RATIO if name in MD17 else CHEAP // PER_RATIO)
    first_labels(sets.expensive, EXPENSIVE)
    cheap = rng.permutation(len(sets.cheap))[:CHEAP]
    expensive = rng.permutation(len(sets.expensive))[:EXPENSIVE]
    return (
        select_labels(sets.cheap, cheap),
        select_labels(sets.expensive, expensive),
        joined_labels(sets.stopping, sets.choosing),
    )


def error_rows(done: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the error of each way, over the seeds."""
    rows = []
    for name in dict.fromkeys(name for row in done for name in row):
        part = name.partition(",")[0]
        values = np.ravel([row[name] for row in done if name in row]).tolist()
        errors = "{median:.2f} ({low:.2f} to {high:.2f})".format(**median_range(values))
        steps, wall = STEPS[part]
        rows.append({"way": name, "steps": steps, "wall": wall, "error": errors})
    return rows


def main() -> None:
    """Train what is missing, show, keep."""
    parser = make_parser(__doc__)
    names = ", ".join(("formaldehyde", *MD17))
    parser.add_argument("--data", type=Path, required=True)
    help_ = f"{names}, or an npz file as `benchmarks.accuracy.asteroid` takes"
    parser.add_argument("--set", default="formaldehyde", help=help_)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/averaging"))
    parser.add_argument("--parts", choices=tuple(PARTS), nargs="+", default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fewer = QUICK if options.quick else 1
    done = Rows(options.work / f"{molecule_name(options.set)}-{fewer}.jsonl")
    for seed in range(options.seeds):
        try:
            cheap, expensive, judge = draw_labels(options.data, options.set, seed)
        except InputError as error:
            raise SystemExit(str(error)) from error
        comparison = Comparison(cheap, expensive, judge, seed, fewer)
        for part in options.parts:
            if f"{part}/{seed}" not in done:
                began = cpu_seconds()
                done[f"{part}/{seed}"] = PARTS[part](comparison)
                show(f"{part}/{seed}: {cpu_seconds() - began:.0f} CPU s")
    rows = error_rows([done[key] for key in done])
    show(make_table(f"Force error, {options.set}, meV/Å", rows))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
