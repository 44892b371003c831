"""ASTEROID against standard training on published labels, at equal steps.

    python -m benchmarks.accuracy.asteroid --data DIR --molecule ethanol --out FOLDER
    python -m benchmarks.accuracy.asteroid --data DIR --molecule ethanol --out FOLDER \\
        --arms standard --grid
    python -m benchmarks.accuracy.asteroid --data DIR --molecule ethanol --out FOLDER \\
        --arms no-bat --seed 1 2 --mean
    python -m benchmarks.accuracy.asteroid --out FOLDER --table
    python -m benchmarks.accuracy.asteroid --out FOLDER --figures FILE.png

DIR holds md17_ccsd/MOLECULE.npz (MD17 and MD17@CCSD(T), sgdml.org) and h2co/*.npz;
--molecule also takes the path of a file of your own in that layout, which
`benchmarks.accuracy.asteroid.data` describes. Standard training sees 250 expensive
labels, every other arm 200 and 50 R cheap ones, where R is what an expensive label
costs in cheap ones. A row (one arm, one seed) is one file in FOLDER, written when it is
done: what is there is skipped, a row that was killed goes on from FOLDER/states, and
many processes may work on one folder. With --grid an arm is made with every peak step
and weight decay of `GRID` in `arms.py`; the table takes the one that errs least on the
validation frames, and --test looks at no other. With --mean the errors of the mean
forces of an arm's seeds are printed too. Frames whose geometry stands in two sets are
left out of one of them, which is printed.
Errors are mean absolute force components in kcal/mol/Å; the test set is looked at with
--test only, and each look is a line in FOLDER/test.log.
"""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from math import inf
from pathlib import Path

import torch

from alloop.core.errors import InputError
from alloop.generation import load as load_model
from alloop.models.settings import NETWORKS
from alloop.training.stages import Schedule
from alloop.training.state_folder import StateFolder
from benchmarks.accuracy.asteroid import rows as files
from benchmarks.accuracy.asteroid.arms import (
    ARMS,
    GRID,
    Arm,
    default_steps,
    with_changes,
    with_schedule,
    without_cheap_energies,
)
from benchmarks.accuracy.asteroid.data import (
    MOLECULES,
    Sets,
    first_labels,
    label_at_level,
    load,
    molecule_name,
)
from benchmarks.accuracy.asteroid.figures import draw_figures
from benchmarks.accuracy.asteroid.job import (
    Job,
    Task,
    add_cheap_level,
    mean_error,
    test_error,
    train_arm,
)
from benchmarks.accuracy.asteroid.table import lines


def main() -> None:
    """Make the rows that are missing, or show the table."""
    options = _parser().parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table or options.figures:
        _show(files.rows(options.out), options)
        return
    if options.data is None:
        raise SystemExit("expected --data DIR, the folder of md17_ccsd/ and h2co/")
    try:
        sets = load(options.data, options.molecule, options.ratio, multi=options.multi)
    except InputError as error:
        raise SystemExit(str(error)) from error
    for name, many in sets.left_out.items():
        say(f"{name}: {many} frames left out, their geometry stands in another set")
    if options.level:
        frames = list(sets.cheap.batch.frames())
        sets = replace(
            sets, cheap=label_at_level(frames, options.level), approximate=False
        )
    try:
        made = _jobs(options, sets)
    except InputError as error:
        raise SystemExit(str(error)) from error
    for job in made:
        _make(job, sets, options.out)
    _judge(_best_jobs(made, options.out), sets, options)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="the folder of md17_ccsd/ and h2co/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--molecule", default="ethanol", help=f"{', '.join(MOLECULES)}, or an npz file")
    add("--network", choices=sorted(NETWORKS), default="painn")
    add("--settings", type=json.loads, default={}, help="of the network, as JSON")
    add("--ratio", type=int, default=20, help="cheap labels an expensive one costs")
    add("--seed", type=int, nargs="+", default=[0])
    add("--arms", default="standard,no-ft,no-bat,asteroid", help=", ".join(ARMS))
    add("--steps", type=int, help="of a row; by default what five minutes gave")
    add("--grid", action="store_true", help="with every step and decay of GRID")
    add("--expensive", type=int, help="expensive labels of every arm, up to 400")
    add("--gamma", type=float, help="of the arms with weights, in spreads of the bias")
    add("--optimiser", choices=("muon", "adamw"), default="muon")
    add("--lr", type=float, default=2.5e-3, help="the optimiser's peak step")
    add("--decay", type=float, default=0.0, help="weight decay")
    add("--fine", type=float, default=4e-4, help="the same in fine-tuning")
    add("--ema", type=float, default=0.99)
    add(
        "--change",
        type=json.loads,
        default={},
        help="""of stages, as JSON: {"fine-tuning": {"norm": "l1", "steps": 83}}, fields
        of Schedule and shares of the steps (of about 1000)""",
    )
    add("--batch", type=int, default=10)
    add("--multi", action="store_true", help="cheap labels of all three molecules")
    add("--level", default="", help="cheap labels of this level instead: gfn2-xtb, ...")
    add("--test", action="store_true", help="look at the test set")
    add("--mean", action="store_true", help="also the mean forces of an arm's seeds")
    add("--table", action="store_true", help="show what the folder holds")
    add("--figures", type=Path, help="draw what the folder holds to this .png or .svg")
    return parser


def _show(rows: list[files.Row], options: Namespace) -> None:
    if options.table:
        say("\n".join(lines(rows)))
    if options.figures:
        draw_figures(rows, options.figures)


def _jobs(options: Namespace, sets: Sets) -> list[Job]:
    names = options.arms.split(",")
    unknown = sorted(set(names) - set(ARMS))
    if unknown:
        raise SystemExit(f"there is no arm {unknown}; known are {', '.join(ARMS)}")
    if "delta" in names and not sets.twins:
        raise SystemExit("delta needs cheap labels of all expensive frames")
    ways = GRID if options.grid else ((options.lr, options.decay),)
    task = _task(options)
    made = [
        Job(task, name, _arm(options, sets, name, *way), seed)
        for seed in options.seed
        for name in names
        for way in ways
    ]
    first_labels(sets.expensive, max(job.arm.expensive for job in made))
    return made


def _arm(options: Namespace, sets: Sets, name: str, lr: float, decay: float) -> Arm:
    """An arm as it is asked for; stages that go on keep their share of the peak."""
    schedule = Schedule(
        lr=lr,
        batch=options.batch,
        ema=options.ema,
        optimiser=options.optimiser,
        weight_decay=decay,
    )
    arm = with_schedule(ARMS[name], schedule, options.fine * lr / options.lr)
    arm = with_changes(arm, options.change)
    if sets.approximate:
        arm = without_cheap_energies(arm)
    return replace(
        arm,
        expensive=options.expensive or arm.expensive,
        gammas=(options.gamma,) if options.gamma else arm.gammas,
    )


def _task(options: Namespace) -> Task:
    return Task(
        molecule=molecule_name(options.molecule),
        network=options.network,
        settings=tuple(sorted(options.settings.items())),
        ratio=options.ratio,
        multi=options.multi,
        level=options.level,
        steps=options.steps
        or default_steps(molecule_name(options.molecule), options.batch),
    )


def _best_jobs(made: list[Job], folder: Path) -> list[Job]:
    """Of each arm and seed the way that errs least on the validation frames."""

    def error(job: Job) -> float:
        file = folder / f"{job.file}.json"
        row = json.loads(file.read_text("utf-8")) if file.exists() else None
        return inf if row is None else files.validation_error(row)

    groups: dict[tuple[str, int], list[Job]] = {}
    for job in made:
        groups.setdefault((job.name, job.seed), []).append(job)
    return [min(ways, key=error) for ways in groups.values()]


def _make(job: Job, sets: Sets, folder: Path) -> None:
    file = folder / f"{job.file}.json"
    with files.claim_row(file) as free:
        if free:
            row, model = train_arm(job, sets, StateFolder(folder / "states"))
            files.keep(file, row, model)
            errors = f"{row['stopping']:.3f} {row['choosing']:.3f} kcal/mol/Å"
            say(f"{job.file}: {errors}, {row['cpu_seconds']:.0f} CPU s")


def _test(job: Job, sets: Sets, folder: Path) -> None:
    file = folder / f"{job.file}.json"
    row = json.loads(file.read_text("utf-8")) if file.exists() else {"test": 0.0}
    if row["test"] is not None:
        return
    model = load_model(file.with_suffix(".model")).potential
    files.log_test_look(folder, job.file)
    files.replace(file, {**row, "test": test_error(job, model, sets)})


def _judge(best: list[Job], sets: Sets, options: Namespace) -> None:
    """Look at the test set and at mean forces, if asked to."""
    for job in best if options.test else ():
        _test(job, sets, options.out)
    for name in options.arms.split(",") if options.mean else ():
        _mean([job for job in best if job.name == name], sets, options)


def _mean(jobs: list[Job], sets: Sets, options: Namespace) -> None:
    """Print the errors of the mean forces of an arm's models, one a seed."""
    models = []
    for job in jobs:
        network = load_model(options.out / f"{job.file}.model").potential
        models.append(add_cheap_level(network, job.arm, sets))
    judged = {"stopping": sets.stopping, "choosing": sets.choosing}
    if options.test:
        files.log_test_look(
            options.out, "mean of " + " ".join(job.file for job in jobs)
        )
        judged["test"] = sets.test
    errors = [
        f"{name} {mean_error(models, labels):.4f}" for name, labels in judged.items()
    ]
    seeds = ", ".join(str(job.seed) for job in jobs)
    say(f"{jobs[0].name}, mean forces of seeds {seeds}: {', '.join(errors)} kcal/mol/Å")


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
