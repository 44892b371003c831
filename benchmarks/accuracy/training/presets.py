"""Errors and time of the presets of `alloop train`, by the number of labels.

    python -m benchmarks.accuracy.training.presets --data DIR --out FOLDER
        [--molecule ethanol] [--expensive 50] [--cheap 400] [--preset quick standard]
        [--seed 0] [--table] [--quick] [--json FILE]

DIR holds md17_ccsd/ and h2co/, or files of your own (`asteroid`). The labels are
written to npz files and trained on as `alloop train --preset` does, with its network
and its validation frames, a tenth of the expensive ones. --cheap 0 leaves the cheap
level out. Errors are those of 100 other frames: mean absolute force components in
meV/Å and energies in meV, mean removed. CPU seconds include compilers. A row is a line
in FOLDER/presets.jsonl, written when it is done: what is there is skipped, and a row
that was killed goes on.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from alloop.config.train_sections import PRESETS
from alloop.core.errors import InputError
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet
from alloop.jobs.train_job import train
from alloop.training.label_changes import joined_labels, select_labels
from benchmarks.accuracy.asteroid.data import (
    PER_RATIO,
    first_labels,
    load,
    molecule_name,
)
from benchmarks.accuracy.asteroid.rows import machine
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json


def write_labels(path: Path, labels: LabelSet) -> None:
    """Write the labels of one molecule to an npz, eV and eV/Å."""
    size = int(labels.batch.sizes[0])
    shape = (len(labels), size, 3)
    np.savez(
        path,
        z=labels.batch.numbers[:size],
        R=labels.batch.positions.reshape(shape),
        E=labels.energies,
        F=labels.forces.reshape(shape),
    )


def preset_row(options: Namespace, preset: str, seed: int) -> Row:
    """Train with a preset; return steps, CPU seconds and errors."""
    sets = load(options.data, options.molecule, -(-options.cheap // PER_RATIO))
    folder = (
        options.out
        / f"{molecule_name(options.molecule)}-{options.expensive}-{options.cheap}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    start = []
    pools = {"expensive": first_labels(sets.expensive, options.expensive)}
    if options.cheap:
        pools["cheap"] = select_labels(sets.cheap, np.arange(options.cheap))
    for level, labels in pools.items():
        file = folder / f"{level}.npz"
        write_labels(file, labels)
        units = {"energy_unit": "eV", "length_unit": "angstrom"}
        start.append({"labels": str(file), "level": level, **units})
    kind = "asteroid" if options.cheap else "standard"
    steps = (
        {"teacher": 5, "pretrain": 5, "finetune": 5} if options.cheap else {"steps": 5}
    )
    training = {"kind": kind, **(steps if options.quick else {})}
    trained = train(
        {"start": start, "training": training, "seed": seed},
        folder / f"{preset}-{seed}.model",
        preset=preset,
        force=True,
    )
    judge = joined_labels(sets.stopping, sets.choosing)
    errors = prediction_errors(trained.generation.predict(judge.batch), judge)
    return {
        "preset": preset,
        "steps": sum(trained.history["steps"]),
        "cpu_seconds": sum(trained.history["cpu_seconds"]),
        "force": 1e3 * errors.force_mae,
        "energy": 1e3 * errors.energy_spread,
        **machine(),
    }


def main() -> None:
    """Make the rows that are missing, and show those that are there."""
    options = _options()
    torch.set_num_threads(1)
    rows = Rows(options.out / "presets.jsonl")
    quick = "-quick" * options.quick
    for preset, seed in product(() if options.table else options.preset, options.seed):
        sizes = f"{options.expensive}-{options.cheap}"
        key = f"{molecule_name(options.molecule)}-{sizes}-{preset}-{seed}{quick}"
        if key not in rows:
            try:
                rows[key] = preset_row(options, preset, seed)
            except InputError as error:
                raise SystemExit(str(error)) from error
    table = [{"row": key, **rows[key]} for key in rows]
    show(make_table("Presets, meV/Å and meV", table))
    write_json(options.json, {"rows": table})


def _options() -> Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of md17_ccsd/ and h2co/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--molecule", default="ethanol")
    add("--expensive", type=int, default=50, help="expensive labels")
    add("--cheap", type=int, default=0, help="cheap labels; 0 for none")
    add("--preset", nargs="+", choices=tuple(PRESETS), default=["quick", "standard"])
    add("--seed", type=int, nargs="+", default=[0])
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.data is None and not options.table:
        parser.error("expected --data DIR, the folder of md17_ccsd/ and h2co/")
    return options


if __name__ == "__main__":
    main()
