"""Does fine-tuning along one trajectory beat frames of parallel or earlier runs?

    python -m benchmarks.accuracy.exploration.periodic --out FOLDER
    python -m benchmarks.accuracy.exploration.periodic --out FOLDER --table

Wong and Yang (arXiv 2603.10159) compared three protocols, repeated here in small on a
molecule. A PaiNN network trained on GFN2-xTB labels of the other molecules of
`data/molecules.npz` plays the universal model, GFN1-xTB (--truth) the truth. In each
generation walkers move at 500 K, frames of the second half get true labels, and the
universal model is fine-tuned on all labels so far. Arms, at equal labels: `periodic`,
walkers go on, each time on the newest model; `naive`, new walkers on the universal
model; `non-periodic`, walkers go on, on the universal model; `periodic, replay`,
frames of the pretraining replayed, as the universal model labels them.

Errors by generation: `own` on a fresh trajectory of the model itself, `true` on
independent MD at the true level, `old` on held-out frames of other molecules at the
level of the pretraining (what is forgotten); forces as mean absolute components in
meV/Å, energies as model less truth in meV/atom. Of a longer run on the last model: the
share of walkers that guard rails leave whole, errors, mean leverage and Q-residual by
quarter of the run, and Spearman's correlation of both with the largest force error of
an atom. A seed of an arm takes some two CPU minutes.

With --cluster SO3LR, as it comes, is the universal model and GFN2-xTB the truth of a
cluster that is packed at random and drifts: `acid` is oxalic acid in 12 waters, 44
atoms, `solvent` choline chloride with two ureas and seven waters, 59. Each seed packs
one of its own. A soft wall keeps molecules from evaporating. All arms share their
random numbers, and so their first generation; `old` is then the change of forces on
other molecules, and replayed frames are of these too. `slope` is that of the energy's
residual against the true energy, `rdf` the difference of the O-O and O-H distances
from those of MD at the true level (0 to 2), which between two halves of its own
walkers is that of the arm `truth`.

Rows are lines in FOLDER/periodic.jsonl, and each generation's labels, walkers and model
are files beside it: a killed run goes on after its last generation.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.prediction_errors import largest_force_errors, prediction_errors
from alloop.core.records import LabelSet, TrainingData, Walker
from alloop.core.seeds import torch_seed
from alloop.core.units import Floats
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.scores.leverage import fit_leverage
from alloop.scores.qresidual import atom_descriptors, fit_qresidual
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.replay import Replay, fitted_references
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from benchmarks.accuracy.exploration.clusters import (
    CLUSTERS,
    histogram_distance,
    pair_histogram,
)
from benchmarks.accuracy.exploration.protocol_systems import (
    NOTHING,
    Seen,
    System,
    fresh_walkers,
    generation_folder,
    make_system,
    move,
    row_key,
    write_arrays,
)
from benchmarks.accuracy.stored_model import stored_model
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    mean_range,
    show,
    write_json,
)

ARMS = {  # protocol, and whether frames of the pretraining are replayed
    "periodic": ("periodic", False),
    "naive": ("naive", False),
    "non-periodic": ("non-periodic", False),
    "periodic, replay": ("periodic", True),
}
_QUARTERS = 4
_MILLI = 1e3
_HIDDEN = ("labels", "stopped", "true energy std")  # from the table


def pretrain(system: System, options: Namespace, seed: int) -> LearnedPotential:
    """Return the network that plays the universal model."""
    stages = standard_stages(options.pretrain, Schedule(5e-3, 10, compile=False))
    trainer = StagedTrainer("painn", {"channels": options.channels}, stages)
    return trainer.train(TrainingData(NOTHING, system.known), None, seed)[0]


def twins(arm: str, number: int, options: Namespace) -> list[str]:
    """Return the arms whose generation of that number is the same, in their order.

    Those of clusters share their random numbers: all start with one exploration on the
    universal model, and one training without replay.
    """
    if not options.cluster or number > 1:
        return [arm]
    return [x for x in ARMS if number == 0 or ARMS[x][1] == ARMS[arm][1]]


def generations(
    arm: str, system: System, universal: LearnedPotential, options: Namespace, seed: int
) -> Iterator[tuple[int, LearnedPotential, LabelSet]]:
    """Yield number, model and labels of each generation.

    0 is the universal model, with reference energies of the first labels.
    """
    model, labels = universal, NOTHING
    walkers: tuple[Walker, ...] = ()
    folder = generation_folder(options, seed)
    for number in range(1, options.generations + 1):
        run = twins(arm, 0, options)[0] if number == 1 else arm
        file = folder / f"{run}-{number}.npz"
        if not file.exists():
            _explore(
                file, arm, number, system, (model, universal), walkers, options, seed
            )
        new, walkers = _read_generation(file, system.start)
        labels = joined_labels(labels, new)
        if number == 1:
            yield 0, _with_references(universal, labels), NOTHING
        tuned = stored_model(
            folder / f"{twins(arm, number, options)[0]}-{number}.model",
            partial(tune, universal, labels, system, arm, options, seed),
        )
        assert isinstance(tuned, LearnedPotential)
        model = tuned
        yield number, model, labels


def _explore(  # noqa: PLR0913 - the state of a protocol
    file: Path,
    arm: str,
    number: int,
    system: System,
    models: tuple[LearnedPotential, LearnedPotential],
    walkers: tuple[Walker, ...],
    options: Namespace,
    seed: int,
) -> None:
    """Move the walkers of a generation, and write new labels and walkers to a file.

    models: that of the last generation, and the universal one.
    """
    protocol, _ = ARMS[arm]
    name = f"{'walk' if options.cluster else protocol}/{number}"
    new = fresh_walkers(system.start, options.walkers, seed, name, system.conditions)
    going = walkers if walkers and protocol != "naive" else new
    going = tuple(
        walker if walker.stopped is None else replace(other, index=walker.index)
        for walker, other in zip(going, new, strict=True)
    )
    mover = models[0] if protocol == "periodic" else models[1]
    seen, moved = move(going, mover, options.steps, seed, name, system.conditions)
    labels = system.truth.label(seen.spread(options.labels, options.steps // 2).frames)
    write_arrays(
        file,
        labelled=np.array([frame.positions for frame in labels.batch.frames()]),
        energies=labels.energies,
        forces=labels.forces,
        positions=np.array([walker.frame.positions for walker in moved]),
        velocities=np.array([walker.velocities for walker in moved]),
        stopped=np.array([walker.stopped or "" for walker in moved]),
    )


def _read_generation(file: Path, start: Frame) -> tuple[LabelSet, tuple[Walker, ...]]:
    """Return the new labels and the walkers of a generation's file."""
    with np.load(file) as arrays:
        frames = [replace(start, positions=r) for r in arrays["labelled"]]
        labels = LabelSet(pack_frames(frames), arrays["energies"], arrays["forces"])
        rows = zip(
            *(arrays[key] for key in ("positions", "velocities", "stopped")),
            strict=True,
        )
        walkers = tuple(
            Walker(i, 0, replace(start, positions=r), v, stopped=str(why) or None)
            for i, (r, v, why) in enumerate(rows)
        )
    return labels, walkers


def _with_references(universal: LearnedPotential, labels: LabelSet) -> LearnedPotential:
    """Return the universal model with reference energies fitted to labels."""
    network, scale, rest = (
        universal.frozen_network,
        universal.scale,
        universal.repulsion,
    )
    less = labels if rest is None else rest.without(labels)
    references = fitted_references(network, less, scale)
    return LearnedPotential(network, references, scale, repulsion=rest)


def tune(
    universal: LearnedPotential,
    labels: LabelSet,
    system: System,
    arm: str,
    options: Namespace,
    seed: int,
) -> LearnedPotential:
    """Return the universal model, fine-tuned on labels."""
    schedule = Schedule(options.lr, 5, compile=False, optimiser=system.optimiser)
    stage = replace(standard_stages(options.tune, schedule)[0], start="parent")
    trainer = StagedTrainer(
        system.kind,
        system.settings,
        (stage,),
        given={"expensive": _with_references(universal, labels).references},
        repulsion=universal.repulsion,
    )
    if ARMS[arm][1]:
        known = system.known.batch
        trainer = trainer.replaying(Replay(known, options.share, universal))
    data = TrainingData(NOTHING, labels)
    return trainer.train(data, universal, torch_seed(seed, f"tune/{len(labels)}"))[0]


def generation_row(
    number: int,
    model: LearnedPotential,
    labels: LabelSet,
    system: System,
    options: Namespace,
    seed: int,
) -> Row:
    """Return the errors of a generation, in meV/Å and meV an atom.

    own: on frames of a fresh trajectory of its own; true: on independent frames; old:
    on other molecules at the level of the pretraining. Energies are model less truth.
    """
    at = system.conditions
    begin = fresh_walkers(system.start, options.walkers, seed, "own", at)
    seen, moved = move(begin, model, options.own_steps, seed, "own", at)
    frames = seen.spread(options.own, options.own_steps // 2).frames
    row: Row = {"generation": number, "labels": len(labels)}
    for name, test in (
        ("own", system.truth.label(frames)),
        ("true", system.independent),
    ):
        said = model.covering(test.batch).predict(test.batch)
        row[f"{name} force"] = prediction_errors(said, test).force_mae * _MILLI
        off = (said.energies - test.energies) / test.batch.sizes * _MILLI
        row[f"{name} energy"] = float(off.mean())
        row[f"{name} energy std"] = float(off.std())
        row[f"{name} slope"] = energy_slope(off / _MILLI, test)
    old = model.covering(system.old.batch).predict(system.old.batch)
    row["old force"] = prediction_errors(old, system.old).force_mae * _MILLI
    row["stopped"] = sum(walker.stopped is not None for walker in moved)
    return row | _distance_difference(seen.late(options.own_steps // 2), system)


def energy_slope(residuals: Floats, truth: LabelSet) -> float:
    """Return the slope of residuals (frames,), eV an atom, against the true energy."""
    energies = truth.energies / truth.batch.sizes
    off = energies - energies.mean()
    return float((off * residuals).sum() / (off**2).sum())


def _distance_difference(seen: Seen, system: System) -> Row:
    """Return the difference of distances from those at the true level, of clusters."""
    if system.histogram is None or not seen.frames:
        return {}
    own = pair_histogram(seen.frames)
    return {"rdf": histogram_distance(own, system.histogram)}


def long_row(
    model: LearnedPotential,
    labels: LabelSet,
    system: System,
    options: Namespace,
    seed: int,
) -> Row:
    """Return stability, errors, surprise and Q along a long run on the last model.

    spearman: of each with the largest force error of an atom, over frames.
    """
    at = system.conditions
    begin = fresh_walkers(system.start, options.walkers, seed, "long", at)
    seen, moved = move(begin, model, options.long_steps, seed, "long", at)
    some = seen.spread(options.test)
    test = system.truth.label(some.frames)
    said = model.predict(test.batch, descriptors=True)
    assert said.descriptors is not None
    errors = largest_force_errors(test.batch, said.forces, test.forces)
    learned, held = (
        (x.batch, atom_descriptors(model, x.batch)) for x in _quarter_apart(labels)
    )
    row: Row = {
        "whole": sum(walker.stopped is None for walker in moved) / len(moved),
        "force": prediction_errors(said, test).force_mae * _MILLI,
        "energy": float(
            ((said.energies - test.energies) / test.batch.sizes).mean() * _MILLI
        ),
    }
    for name, scorer in (
        ("leverage", fit_leverage(learned, held)),
        ("Q", fit_qresidual(*learned, *held)),
    ):
        surprise = scorer.score(test.batch, said)
        row[f"{name} spearman"] = float(spearmanr(surprise, errors).statistic)
        row[f"{name} by quarter"] = _by_quarter(
            surprise, some.steps, options.long_steps
        )
    return row | _distance_difference(seen.late(options.long_steps // 2), system)


def _quarter_apart(labels: LabelSet) -> tuple[LabelSet, LabelSet]:
    """Return three quarters of the labels, and the other one to calibrate on."""
    aside = np.arange(len(labels)) % 4 == 0
    return select_labels(labels, np.flatnonzero(~aside)), select_labels(
        labels, np.flatnonzero(aside)
    )


def _by_quarter(values: Floats, steps: Sequence[int], last: int) -> list[float | None]:
    quarter = np.minimum(_QUARTERS * np.array(steps) // (last + 1), _QUARTERS - 1)
    parts = [values[quarter == index] for index in range(_QUARTERS)]
    return [float(x.mean()) if len(x) else None for x in parts]


def model_file(options: Namespace, seed: int) -> Path:
    """Return the file of the universal model, whose name has all it depends on."""
    sizes = (options.molecule, options.channels, options.known, options.pretrain, seed)
    folder: Path = options.out / "periodic"
    return folder / f"{'-'.join(map(str, sizes))}.model"


# --- rows -----------------------------------------------------------------------------


def universal_model(options: Namespace, system: System, seed: int) -> LearnedPotential:
    """Return the universal model of a seed, trained now where it is missing."""
    if options.cluster:
        return LearnedPotential(build_network(system.kind, system.settings), {})
    restored = stored_model(
        model_file(options, seed), lambda: pretrain(system, options, seed)
    )
    assert isinstance(restored, LearnedPotential)
    return restored


def make_rows(options: Namespace, rows: Rows) -> None:
    """Run the arms that are missing."""
    for seed in options.seed:
        missing = [
            arm
            for arm in options.arms
            if row_key(options, seed, arm, "long") not in rows
        ]
        if not missing:
            continue
        system = make_system(options, seed, rows)
        universal = universal_model(options, system, seed)
        for arm in missing:
            run = generations(arm, system, universal, options, seed)
            for number, model, labels in run:
                keys = [
                    row_key(options, seed, twin, number)
                    for twin in twins(arm, number, options)
                ]
                made = [rows[key] for key in keys if key in rows]
                if (key := row_key(options, seed, arm, number)) not in rows:
                    rows[key] = (
                        made[0]
                        if made
                        else generation_row(
                            number,
                            model,
                            labels,
                            system=system,
                            options=options,
                            seed=seed,
                        )
                    )
                    show(f"{arm}, seed {seed}, generation {number}")
            rows[row_key(options, seed, arm, "long")] = long_row(
                model, labels, system, options, seed
            )
            show(f"{arm}, seed {seed}")


def table(options: Namespace, rows: Rows, whats: Sequence[object]) -> list[Row]:
    """Return a row for each arm and each of `whats`: means over seeds, with ranges."""
    out: list[Row] = []
    every = [
        row_key(options, s, a, w) for s in options.seed for a in ARMS for w in whats
    ]
    columns = list(dict.fromkeys(x for key in every if key in rows for x in rows[key]))
    for arm in (*options.arms, *(["truth"] if options.cluster else [])):
        for what in whats:
            keys = (row_key(options, seed, arm, what) for seed in options.seed)
            done = [rows[key] for key in keys if key in rows]
            if done:
                figures = {x: _spread([row.get(x) for row in done]) for x in columns}
                out.append({"arm": arm, "seeds": len(done), **figures})
    return out


def _spread(values: list[float | list[float] | None]) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return ""
    if isinstance(present[0], list):
        means = np.array(present, dtype=np.float64).mean(axis=0)
        return " ".join(f"{x:.2g}" for x in means)
    numbers = np.array(present, dtype=np.float64).tolist()
    return mean_range(numbers[:1] if len(set(numbers)) == 1 else numbers)


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of models and rows")
    add("--seed", type=int, nargs="+", default=[0])
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--molecule", default="CH3OH", help="a molecule of data/molecules.npz")
    add("--cluster", choices=list(CLUSTERS), help="SO3LR on a cluster instead")
    add("--kelvin", type=float, default=350.0, help="temperature of a cluster")
    add("--timestep", type=float, default=1.0, help="time step of a cluster, fs")
    add(
        "--truth", help="the level that plays the truth; gfn1-xtb, of clusters gfn2-xtb"
    )
    add("--channels", type=int, default=32)
    add("--known", type=int, default=600, help="frames of the pretraining")
    add("--pretrain", type=int, default=1500, help="steps of the pretraining")
    add("--generations", type=int, default=5)
    add("--labels", type=int, default=10, help="labels of a generation")
    add("--walkers", type=int, default=4)
    add("--steps", type=int, default=400, help="MD steps of a generation, 0.5 fs")
    add("--tune", type=int, default=150, help="steps of fine-tuning")
    add("--lr", type=float, default=1e-3, help="peak learning rate of fine-tuning")
    add("--share", type=float, default=0.3, help="share of replayed frames")
    add("--own", type=int, default=20, help="test frames of its own trajectory")
    add("--own-steps", type=int, default=300, help="MD steps of that trajectory")
    add("--true-steps", type=int, default=1000, help="MD steps at the true level")
    add("--long-steps", type=int, default=2000, help="MD steps of the longer run")
    add("--test", type=int, default=100, help="independent and old frames")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    options.truth = options.truth or ("gfn2-xtb" if options.cluster else "gfn1-xtb")
    if options.quick:
        options.channels, options.known, options.pretrain, options.generations = (
            8,
            40,
            20,
            2,
        )
        options.steps, options.tune, options.own, options.own_steps = 40, 5, 4, 40
        options.true_steps, options.long_steps, options.test = 60, 60, 8
    rows = Rows(options.out / "periodic.jsonl")
    if not options.table:
        make_rows(options, rows)
    name = options.cluster or options.molecule
    lines = table(options, rows, range(options.generations + 1))
    long = table(options, rows, ["long"])
    if lines:
        shown = [{k: v for k, v in x.items() if k not in _HIDDEN} for x in lines]
        show(make_table(f"{name}: errors by generation", shown))
    if long:
        show(make_table(f"{name}: longer runs", long))
    write_json(options.json, {"generations": lines, "long": long})


if __name__ == "__main__":
    main()
