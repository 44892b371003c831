"""Which way of fine-tuning a universal potential, with how many labels?

    python -m benchmarks.accuracy.universal.tuning_ways --data DIR --out FOLDER
    python -m benchmarks.accuracy.universal.tuning_ways --out FOLDER --table

SO3LR is fine-tuned on CCSD(T) labels of a molecule of MD17 (DIR holds
md17_ccsd/MOLECULE.npz, sgdml.org) in 400 steps of five frames. Ways: `all` weights;
`body` frozen, so that the last layer and the readouts are trained; `adapters` of rank 4
and 16; `replay` of 600 frames of other small molecules (`data/molecules.npz`), which it
labels itself, with shared readouts; `head`, the same with readouts of their own for
them. A number behind these is the share in the loss; they take more steps, so that
frames of the molecule are seen as often as without replay.

`target`: the mean absolute force component on 50 validation frames of the molecule,
kcal/mol/Å; `of all`: over that of training all weights. Forgetting: what the error of
forces becomes on 40 other frames of MD of those molecules that nothing was trained on,
over what it was before, against PBE0/def2-TZVP, near the level that SO3LR was trained
at (PBE0 with many-body dispersion). These labels take some CPU minutes once. `change`:
of the forces of those frames from the potential as it comes, meV/Å. All by the readouts
of the molecule's level. A row is a line in FOLDER/ways.jsonl, some 30 CPU seconds; one
that is there is skipped. --path takes a converted file of MACE or SevenNet in place of
SO3LR.

`--molecule salt` takes rock salt at GFN1-xTB in place of a molecule of MD17 (`target`
in meV/Å, on 40 frames), 16 other crystals to replay, and 9 more to judge the change on,
for which there are no labels: a potential of crystals, so `--path` of SevenNet. Needs
`alloop[xtb]`.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alloop.config.load import parse_level
from alloop.core.batch import Batch, pack_frames
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet, TrainingData
from alloop.core.seeds import random_stream
from alloop.labels.direct import DirectLabeller
from alloop.models.network import build_network
from alloop.models.universal.converted import read_converted
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.potentials.learned import LearnedPotential
from alloop.training.fit import cpu_seconds
from alloop.training.replay import Replay
from alloop.training.stages import Adapters, Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from benchmarks.accuracy.asteroid.data import MD17, first_labels, load
from benchmarks.accuracy.asteroid.job import error
from benchmarks.accuracy.labelled_pool import DATA, read_pool
from benchmarks.accuracy.universal.crystals import (
    judged_crystals,
    replayed_crystals,
    salt_labels,
)
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    mean_range,
    show,
    write_json,
)

NOTHING = LabelSet.of([], [], [])
SALT = "salt"
LEVEL = "{level: pbe0/def2-tzvp, density_fit: true}"
_KNOWN, _OLD = 600, 40  # frames to replay, and to judge forgetting on
_BATCH = 5
_MILLI = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """Other molecules or crystals: frames to replay, and ones to judge forgetting on.

    labels: of the judged frames at the level that the potential was trained at, if any.
    """

    known: Batch
    judged: Batch
    labels: LabelSet | None


@dataclass(frozen=True, slots=True)
class Way:
    """One way of fine-tuning: what is trained, and the share of replayed frames.

    lr: the peak learning rate; adapters of low rank take a higher one.
    """

    adapters: Adapters | None = None
    freeze: str = "nothing"
    share: float = 0.0
    own_head: bool = False
    lr: float = 3e-4

    def steps(self, steps: int, labels: LabelSet, others: Others) -> int:
        """Return the steps of training: more by those that replayed frames take."""
        sizes = float(labels.batch.sizes.mean() / others.known.sizes.mean())
        return round(steps * (1.0 + self.share / (1.0 - self.share) * sizes))


WAYS: Mapping[str, Way] = {
    "all": Way(),
    "body": Way(freeze="body"),
    "adapters 4": Way(Adapters(4, 4.0), lr=1e-3),
    "adapters 16": Way(Adapters(16, 16.0), lr=1e-3),
    **{f"replay {x}": Way(share=x) for x in (0.03, 0.05, 0.1, 0.12, 0.15, 0.2)},
    "head 0.2": Way(share=0.2, own_head=True),
}


def other_frames(options: Namespace) -> Others:
    """Return other frames; labels of molecules come from a file once made."""
    if options.molecule == SALT:
        return Others(replayed_crystals(), judged_crystals(), None)
    pool = read_pool(DATA / "molecules.npz")
    order = random_stream(0, "ways/others").permutation(len(pool.frames))
    assert pool.plain is not None
    calm = set(pool.plain.tolist())
    rest = [i for i in order[_KNOWN:].tolist() if i in calm][: options.old]
    known = pool.label_set("cheap", order[:_KNOWN]).batch
    judged = pool.label_set("cheap", np.array(rest)).batch
    return Others(known, judged, _true_labels(judged, options.out, options.level))


def _true_labels(batch: Batch, folder: Path, text: str) -> LabelSet:
    rows = Rows(folder / "others.jsonl")
    level = parse_level(text)
    truth = LabellerPotential(DirectLabeller(level))
    labels = []
    for frame in batch.frames():
        key = f"{level.id}/{frame.id}"
        if key not in rows:
            said = truth.predict(pack_frames([frame]))
            rows[key] = {
                "energy": float(said.energies[0]),
                "forces": said.forces.tolist(),
            }
        labels.append(rows[key])
    return LabelSet.of(
        batch.frames(),
        [row["energy"] for row in labels],
        [np.array(row["forces"]) for row in labels],
    )


def train_row(
    way: Way, labels: LabelSet, others: Others, seed: int, options: Namespace
) -> tuple[LearnedPotential, Row]:
    """Return a fine-tuned potential and what its training says."""
    kind, settings = network_of(options)
    lr = options.rate * way.lr
    schedule = Schedule(lr, _BATCH, compile=False, optimiser="adamw")
    staged = StagedTrainer(
        kind,
        {**settings, "freeze": way.freeze},
        standard_stages(way.steps(options.steps, labels, others), schedule),
        adapters=way.adapters,
        own_head=way.own_head,
    )
    trainer = UniversalTrainer(staged)
    if way.share:
        trainer = trainer.replaying(Replay(others.known, way.share))
    began = cpu_seconds()
    tuned, history = trainer.train(TrainingData(NOTHING, labels), None, seed)
    row: Row = {
        "cpu_seconds": cpu_seconds() - began,
        "replayed": history.get("replayed/force_mae"),
    }
    return tuned, row


def network_of(options: Namespace) -> tuple[str, dict[str, Any]]:
    """Return kind and settings of the potential that is fine-tuned."""
    if not options.path:
        return "so3lr", {}
    return read_converted(options.path).kind, {"path": str(options.path)}


def forgetting_row(tuned: LearnedPotential, others: Others, options: Namespace) -> Row:
    """Return errors on other frames before and after, and the change, meV/Å."""
    batch = others.judged
    own = build_network(*network_of(options), dtype=torch.float32)
    before = LearnedPotential(own, {}).covering(batch).predict(batch)
    after = tuned.covering(batch).predict(batch)
    change = float(np.abs(after.forces - before.forces).mean()) * _MILLI
    if others.labels is None:
        return {"change": change}
    errors = [
        prediction_errors(said, others.labels).force_mae * _MILLI
        for said in (before, after)
    ]
    return {
        "old": errors[1],
        "old before": errors[0],
        "forgetting": errors[1] / errors[0],
        "change": change,
    }


def make_rows(options: Namespace, rows: Rows) -> None:
    """Train what is missing."""
    pool, judge = target_labels(options)
    others = other_frames(options)
    for seed in options.seed:
        for count in options.labels:
            for name in options.ways:
                key = row_key(options, seed, count, name)
                if key in rows:
                    continue
                labels = first_labels(pool, count)
                tuned, row = train_row(WAYS[name], labels, others, seed, options)
                target = judge(tuned)
                rows[key] = {
                    "target": target,
                    **forgetting_row(tuned, others, options),
                    **row,
                }
                show(f"{key}: {target:.3f}, changed by {rows[key]['change']:.0f}")


def target_labels(
    options: Namespace,
) -> tuple[LabelSet, Callable[[LearnedPotential], float]]:
    """Return labels to take the first of, and what gives the error of a potential."""
    if options.molecule == SALT:
        test = salt_labels(_OLD, "salt/test")

        def salt_error(tuned: LearnedPotential) -> float:
            return prediction_errors(tuned.predict(test.batch), test).force_mae * _MILLI

        return salt_labels(max(options.labels), "salt/taught"), salt_error
    sets = load(options.data, options.molecule, 20)
    return sets.expensive, partial(error, labels=sets.stopping)


def row_key(options: Namespace, seed: int, count: int, name: str) -> str:
    """Return the key of a row: all that it depends on."""
    facts = f"{options.rate * WAYS[name].lr:g}-{options.steps}-{options.old}"
    own = f"{options.path.stem}/" if options.path else ""
    return f"{own}{options.molecule}/{count}/{name}/{facts}/{seed}"


def table(options: Namespace, rows: Rows) -> Iterator[Row]:
    """Yield a row for each number of labels and each way: means, with ranges."""
    for count in options.labels:
        plain: dict[int, float] = {}
        for name in options.ways:
            keys = {s: row_key(options, s, count, name) for s in options.seed}
            done = {seed: rows[key] for seed, key in keys.items() if key in rows}
            if not done:
                continue
            if name == "all":
                plain = {seed: row["target"] for seed, row in done.items()}
            ratios = [row["target"] / plain[s] for s, row in done.items() if s in plain]
            figures: dict[str, Any] = {
                key: mean_range([row[key] for row in done.values()])
                for key in ("target", "forgetting", "change", "cpu_seconds")
                if all(key in row for row in done.values())
            }
            yield {
                "labels": count,
                "way": name,
                "seeds": len(done),
                "target": figures.pop("target"),
                "of all": mean_range(ratios) if ratios else "",
                **figures,
            }


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of md17_ccsd/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--path", type=Path, help="a converted MACE file, instead of SO3LR")
    add("--level", default=LEVEL, help="the level that it was trained at")
    add("--rate", type=float, default=1.0, help="factor of all learning rates")
    add("--molecule", choices=(*MD17, SALT), default="ethanol")
    add("--labels", type=int, nargs="+", default=[10, 50, 200])
    add("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    add("--seed", type=int, nargs="+", default=[0])
    add("--steps", type=int, default=400)
    add("--old", type=int, default=_OLD, help="frames that forgetting is judged on")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.quick:
        options.labels, options.steps, options.old = [10], 5, 2
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.out / "ways.jsonl")
    if not options.table:
        make_rows(options, rows)
    lines = list(table(options, rows))
    show(make_table(f"{options.molecule}: ways of fine-tuning", lines))
    write_json(options.json, {"rows": lines})


if __name__ == "__main__":
    main()
