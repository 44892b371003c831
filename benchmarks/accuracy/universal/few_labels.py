"""Labels to error of universal potentials and of networks from nothing, at equal time.

    python -m benchmarks.accuracy.universal.few_labels --data DIR --out FOLDER \\
        --molecule ethanol
    python -m benchmarks.accuracy.universal.few_labels --out FOLDER --table

DIR holds md17_ccsd/MOLECULE.npz (MD17 and MD17@CCSD(T), sgdml.org); --molecule also
takes the path of a file of your own in that layout, which
`benchmarks.accuracy.asteroid.data` describes, with --ratio. Networks: so3lr
and ani (from their pretrained weights), painn and tensor-painn (from nothing). Arms:
`direct` trains on the expensive labels alone, `cheap` on a thousand DFT labels first
(aspirin 950; three quarters of the time) and then on the expensive ones, `zero-shot`
not at all. A row (one network, arm, number of expensive labels and seed) is one file
in FOLDER with its model, written when it is done: what is there is skipped, and many
processes may work on one folder.
Time is CPU seconds of the training steps, which are counted before the row begins;
compilers come on top, and `cpu_seconds` of a row holds all. --mean adds rows of mean
forces, of networks that differ in their seeds alone. Errors are mean absolute force
components in kcal/mol/Å on 100 validation frames; the test set is looked at with --test
only, and each look is a line in FOLDER/test.log.
"""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from alloop.core.errors import InputError
from alloop.core.records import TrainingData
from alloop.core.roles import Trainer
from alloop.generation import Generation, to_bytes
from alloop.generation import load as load_model
from alloop.models.settings import is_pretrained
from alloop.potentials.learned import LearnedPotential
from alloop.training.fit import cpu_seconds
from alloop.training.label_changes import select_labels
from alloop.training.stages import Schedule, Stage
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential
from benchmarks.accuracy.asteroid import rows as files
from benchmarks.accuracy.asteroid.arms import digest
from benchmarks.accuracy.asteroid.data import (
    MD17,
    Sets,
    first_labels,
    load,
    molecule_name,
)
from benchmarks.accuracy.asteroid.job import error, mean_error
from benchmarks.common import Row, make_parser, make_table, show, write_json

ArmName: TypeAlias = Literal["zero-shot", "direct", "cheap"]
RATIOS = {"aspirin": 19}  # cheap labels that an expensive one costs, where not 20
_FIRST = 0.75  # of the time, on cheap labels
_FASTEST = 200  # steps a second, more than any network takes: the time cuts them short
NETWORKS: dict[str, dict[str, Any]] = {
    "so3lr": {"lr": 3e-4, "fine": 3e-4, "batch": 5, "optimiser": "adamw"},
    "ani": {"lr": 3e-4, "fine": 3e-4, "batch": 5, "optimiser": "adamw"},
    "painn": {"lr": 2.5e-3, "fine": 4e-4, "batch": 10, "optimiser": "muon"},
    "tensor-painn": {"lr": 2.5e-3, "fine": 4e-4, "batch": 5, "optimiser": "muon"},
}
# Of a stage on cheap labels, where it is not trained as one on expensive labels alone.
FIRST: dict[str, dict[str, Any]] = {"so3lr": {"lr": 2e-3, "optimiser": "muon"}}


@dataclass(frozen=True, slots=True)
class Job:
    """One row: everything that its result depends on, but for the machine.

    lr, fine: peak learning rates of the first stage and of fine-tuning after it.
    """

    molecule: str
    network: str
    settings: tuple[tuple[str, Any], ...]
    arm: ArmName
    labels: int
    seconds: float
    seed: int
    lr: float
    fine: float

    @property
    def first(self) -> dict[str, Any]:
        """What the first stage on cheap labels has of its own."""
        return FIRST.get(self.network, {}) if self.arm == "cheap" else {}

    @property
    def file(self) -> str:
        """The row's file, without its ending."""
        settings = (NETWORKS[self.network], *self.first.values())
        facts = digest(self.settings, (self.lr, self.fine, *settings))
        name = f"{self.molecule}-{self.network}-{self.arm}-{self.labels}labels"
        return f"{name}-{self.seconds:g}s-{facts}-s{self.seed}"


def main() -> None:
    """Make the rows that are missing, and show the table."""
    options = _options()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        _make_rows(options)
    names = [molecule_name(molecule) for molecule in options.molecule]
    rows = [row for row in files.rows(options.out) if row["molecule"] in names]
    table = list(summary_rows(rows))
    show(make_table("mean absolute error of forces, kcal/mol/Å", table))
    write_json(options.json, {"rows": rows, "table": table})


def _options() -> Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of md17_ccsd/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    help_ = f"{', '.join(MD17)}, or npz files"
    add("--molecule", nargs="+", default=["ethanol"], help=help_)
    add("--ratio", type=int, help="cheap labels, in units of 50  [default: 20]")
    add("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    add("--settings", type=json.loads, default={}, help="of the networks, as JSON")
    add("--arm", nargs="+", choices=("zero-shot", "direct", "cheap"), default=None)
    add("--labels", type=int, nargs="+", default=[10, 25, 50, 100, 200])
    add("--seed", type=int, nargs="+", default=[0, 1, 2])
    add("--seconds", type=float, default=300.0, help="CPU time of a row")
    add("--lr", type=float, help="peak learning rate; by default the network's own")
    add("--fine", type=float, help="the same of fine-tuning after cheap labels")
    add("--test", action="store_true", help="look at the test set")
    add("--mean", action="store_true", help="judge the mean of all seeds' forces too")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.data is None and not options.table:
        raise SystemExit("expected --data DIR, the folder of md17_ccsd/")
    if options.quick:
        options.labels, options.seed, options.seconds = [10], [0], 5.0
    return options


def _make_rows(options: Namespace) -> None:
    for molecule in options.molecule:
        try:
            ratio = options.ratio or RATIOS.get(molecule, 20)
            sets = load(options.data, molecule, ratio)
            first_labels(sets.expensive, max(options.labels))
        except InputError as failure:
            raise SystemExit(str(failure)) from failure
        jobs = list(make_jobs(options, molecule_name(molecule)))
        for job in jobs:
            _make_row(job, sets, options.out)
            if options.test:
                _test_row(job, sets, options.out)
        if options.mean:
            for group in seed_groups(jobs):
                _make_mean(group, sets, options.out, options.test)


def make_jobs(options: Namespace, molecule: str) -> Iterator[Job]:
    """Yield the rows of a molecule, fewest labels first."""
    for seed in options.seed:
        for labels in options.labels:
            for network in options.network:
                settings = NETWORKS[network]
                job = Job(
                    molecule=molecule,
                    network=network,
                    settings=tuple(sorted(options.settings.items())),
                    arm="direct",
                    labels=labels,
                    seconds=options.seconds,
                    seed=seed,
                    lr=settings["lr"],
                    fine=options.fine or settings["fine"],
                )
                for arm in options.arm or ("zero-shot", "direct", "cheap"):
                    if arm != "zero-shot" or (is_pretrained(network) and seed == 0):
                        row = replace(job, arm=arm)
                        lr = options.lr or row.first.get("lr", settings["lr"])
                        yield replace(row, lr=lr)


def train_row(job: Job, sets: Sets) -> tuple[Row, bytes]:
    """Train one row; return it and the bytes of its model file."""
    expensive = first_labels(sets.expensive, job.labels)
    began = cpu_seconds()
    if job.arm == "zero-shot":
        potential = untrained_potential(job.network, dict(job.settings), expensive)
        history: dict[str, Any] = {"steps": [0], "engine": []}
    else:
        none = select_labels(sets.cheap, np.zeros(0, np.int64))
        cheap = sets.cheap if job.arm == "cheap" else none
        trainer = row_trainer(job, sets.approximate)
        trained, history = trainer.train(TrainingData(cheap, expensive), None, job.seed)
        assert isinstance(trained, LearnedPotential)
        potential = trained
    row = {
        **{name: getattr(job, name) for name in Job.__slots__ if name != "settings"},
        "settings": dict(job.settings),
        "cheap": len(sets.cheap) if job.arm == "cheap" else 0,
        "steps": history["steps"],
        "engine": history["engine"],
        "cpu_seconds": cpu_seconds() - began,
        "stopping": error(potential, sets.stopping),
        "choosing": error(potential, sets.choosing),
        "test": None,
        **files.machine(),
    }
    return row, to_bytes(Generation(potential, None, None, facts={}))[1]


def row_trainer(job: Job, approximate: bool) -> Trainer:
    """Return the trainer of a row; no loss sees energies that are approximate."""
    settings = NETWORKS[job.network]
    schedule = Schedule(
        job.lr,
        settings["batch"],
        seconds=job.seconds,
        optimiser=settings["optimiser"],
    )
    steps = round(_FASTEST * job.seconds)
    stages: tuple[Stage, ...] = (
        Stage("direct", "expensive", steps, "scratch", schedule=schedule),
    )
    if job.arm == "cheap":
        optimiser = job.first.get("optimiser", settings["optimiser"])
        share = _FIRST * job.seconds
        first = replace(schedule, seconds=share, optimiser=optimiser)
        first = replace(first, energy=0.0) if approximate else first
        rest = replace(schedule, lr=job.fine, seconds=(1.0 - _FIRST) * job.seconds)
        stages = (
            Stage("cheap", "cheap", steps, "scratch", schedule=first),
            Stage("fine-tuning", "expensive", steps, schedule=rest),
        )
    staged = StagedTrainer(job.network, dict(job.settings), stages)
    return UniversalTrainer(staged) if is_pretrained(job.network) else staged


def _make_row(job: Job, sets: Sets, folder: Path) -> None:
    file = folder / f"{job.file}.json"
    with files.claim_row(file) as free:
        if free:
            row, model = train_row(job, sets)
            files.keep(file, row, model)
            show(f"{job.file}: {files.validation_error(row):.3f}")


def _test_row(job: Job, sets: Sets, folder: Path) -> None:
    file = folder / f"{job.file}.json"
    row = json.loads(file.read_text("utf-8")) if file.exists() else {"test": 0.0}
    if row["test"] is None:
        model = load_model(file.with_suffix(".model")).potential
        files.log_test_look(folder, job.file)
        files.replace(file, {**row, "test": error(model, sets.test)})


def seed_groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the trained rows that differ in their seeds alone, where several do."""
    groups: dict[Job, list[Job]] = {}
    for job in jobs:
        if job.arm != "zero-shot":
            groups.setdefault(replace(job, seed=0), []).append(job)
    return [group for group in groups.values() if len(group) > 1]


def _make_mean(jobs: Sequence[Job], sets: Sets, folder: Path, test: bool) -> None:
    """Make the row of the mean of the forces of all seeds' networks."""
    stem = "-".join([jobs[0].file, *(str(job.seed) for job in jobs[1:])])
    file = folder / f"{stem}.json"
    singles = [folder / f"{job.file}.json" for job in jobs]
    with files.claim_row(file) as free:
        if not free or not all(single.exists() for single in singles):
            return
        rows = [json.loads(single.read_text("utf-8")) for single in singles]
        models = [load_model(x.with_suffix(".model")).potential for x in singles]
        row = {**rows[0], "arm": f"{jobs[0].arm}, mean of {len(jobs)}", "test": None}
        row["cpu_seconds"] = sum(part["cpu_seconds"] for part in rows)
        for name in ("stopping", "choosing", *(["test"] if test else [])):
            row[name] = mean_error(models, getattr(sets, name))
        if test:
            files.log_test_look(folder, stem)
        files.replace(file, row)


def summary_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row of the table for each molecule, number of labels, network and arm."""
    keys = ("molecule", "labels", "network", "arm", "seconds", "lr", "fine")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    for key, group in sorted(groups.items()):
        errors = sorted(files.validation_error(row) for row in group)
        tests = [row["test"] for row in group if row["test"] is not None]
        yield {
            **dict(zip(keys, key, strict=True)),
            "seeds": len(group),
            "validation": mean(errors),
            "low": errors[0],
            "high": errors[-1],
            "test": mean(tests) if tests else None,
        }


if __name__ == "__main__":
    main()
