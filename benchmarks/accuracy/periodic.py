"""Does fine-tuning along one trajectory beat frames of parallel or earlier runs?

    python -m benchmarks.accuracy.periodic --out FOLDER
    python -m benchmarks.accuracy.periodic --out FOLDER --table

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
an atom. A seed of an arm takes some two CPU minutes. Rows are lines in
FOLDER/periodic.jsonl: an arm that is there is skipped.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alloop.potentials.learned import LearnedPotential
from benchmarks.accuracy.kept_model import kept_model
from benchmarks.accuracy.protocol_runs import (
    ARMS,
    System,
    generation_row,
    generations,
    long_row,
    make_system,
    model_file,
    pretrain,
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

_HIDDEN = ("labels", "stopped", "own energy std", "true energy std")  # from the table
_SIZES = (
    *("molecule", "truth", "channels", "known", "pretrain", "generations", "labels"),
    *("walkers", "steps", "tune", "lr", "share", "own", "own_steps", "true_steps"),
    *("long_steps", "test"),
)


def row_key(given: Namespace, seed: int, arm: str, what: object) -> str:
    """Return the key of a row: all that it depends on."""
    sizes = "-".join(str(getattr(given, name)) for name in _SIZES)
    return f"{sizes}/{seed}/{arm}/{what}"


def universal_model(given: Namespace, system: System, seed: int) -> LearnedPotential:
    """Return the universal model of a seed, trained now where it is missing."""
    restored = kept_model(
        model_file(given, seed), lambda: pretrain(system, given, seed)
    )
    assert isinstance(restored, LearnedPotential)
    return restored


def make_rows(given: Namespace, rows: Rows) -> None:
    """Run the arms that are missing."""
    for seed in given.seed:
        missing = [
            arm for arm in given.arms if row_key(given, seed, arm, "long") not in rows
        ]
        if not missing:
            continue
        system = make_system(given, seed)
        universal = universal_model(given, system, seed)
        for arm in missing:
            run = generations(arm, system, universal, given, seed)
            for number, model, labels in run:
                key = row_key(given, seed, arm, number)
                if key not in rows:
                    rows[key] = generation_row(
                        number, model, labels, system, given, seed
                    )
            rows[row_key(given, seed, arm, "long")] = long_row(
                model, labels, system, given, seed
            )
            show(f"{arm}, seed {seed}")


def table(given: Namespace, rows: Rows, whats: Sequence[object]) -> list[Row]:
    """Return a row for each arm and each of `whats`: means over seeds, with ranges."""
    out: list[Row] = []
    for arm in given.arms:
        for what in whats:
            keys = (row_key(given, seed, arm, what) for seed in given.seed)
            done = [rows[key] for key in keys if key in rows]
            if done:
                figures = {x: _spread([row[x] for row in done]) for x in done[0]}
                out.append({"arm": arm, "seeds": len(done), **figures})
    return out


def _spread(values: list[float | list[float] | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if isinstance(known[0], list):
        means = np.array(known, dtype=np.float64).mean(axis=0)
        return " ".join(f"{x:.2g}" for x in means)
    numbers = np.array(known, dtype=np.float64).tolist()
    return mean_range(numbers[:1] if len(set(numbers)) == 1 else numbers)


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of models and rows")
    add("--seed", type=int, nargs="+", default=[0])
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--molecule", default="CH3OH", help="a molecule of data/molecules.npz")
    add("--truth", default="gfn1-xtb", help="the level that plays the truth")
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
    given = parser.parse_args()
    if given.quick:
        given.channels, given.known, given.pretrain, given.generations = 8, 40, 20, 2
        given.steps, given.tune, given.own, given.own_steps = 40, 5, 4, 40
        given.true_steps, given.long_steps, given.test = 60, 60, 8
    rows = Rows(given.out / "periodic.jsonl")
    if not given.table:
        make_rows(given, rows)
    found = table(given, rows, range(given.generations + 1))
    long = table(given, rows, ["long"])
    if found:
        shown = [{k: v for k, v in x.items() if k not in _HIDDEN} for x in found]
        show(make_table(f"{given.molecule}: errors by generation", shown))
    if long:
        show(make_table(f"{given.molecule}: longer runs", long))
    write_json(given.json, {"generations": found, "long": long})


if __name__ == "__main__":
    main()
