"""Which scorer of surprise knows where the model is wrong?

    python -m benchmarks.accuracy.uncertainty --data DIR --out FOLDER
    python -m benchmarks.accuracy.uncertainty --out FOLDER --table

DIR holds h2co/*.npz (Käser et al., J. Phys. Chem. A 124, 8853, 2020); ethanol's frames
are made in FOLDER. The campaign's own two stages train on labels of a frozen pool, and
every scorer is fitted to the same model and judged on the same test frames against the
largest true error of an atom's force at the expensive level. Labels are drawn from the
whole pool (`random`) or from the half of lowest energy (`low`), where most test frames
are out of distribution. Each model is kept in FOLDER/uncertainty with three more for
the committee, so that another scorer costs no training.

A row (one model, one scorer) is a line in FOLDER/uncertainty.jsonl: what is there is
skipped. Spearman's correlation is that of surprise and error; AUROC the chance that a
frame of the worst tenth surprises more than another one; `caught` the summed error of
the most surprising tenth, as a share of that of the worst tenth. `cost` is the CPU time
of scoring 32 frames, as a share of that of their forces; `fit` in CPU seconds, for a
committee with its trainings. Means over seeds, with the lowest of each in brackets.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from alloop.core.prediction_errors import largest_force_errors
from alloop.core.units import Floats
from benchmarks.accuracy.labelled_pool import POOLS
from benchmarks.accuracy.uncertainty_models import (
    DRAWS,
    MEMBERS,
    draw_frames,
    model,
    model_file,
    open_pool,
)
from benchmarks.accuracy.uncertainty_scorers import SCORERS, TrainedModel
from benchmarks.common import Row, Rows, make_parser, make_table, show

WORST = 0.1  # the share of frames that should be found
_BATCH, _REPEATS = 32, 9  # frames and calls of which the cost is measured


def error_figures(surprise: Floats, errors: Floats) -> Row:
    """Return how well surprise (frames,) tells errors (frames,) in eV/Å."""
    worst = max(1, round(WORST * len(errors)))
    is_bad = np.zeros(len(errors), dtype=np.bool_)
    is_bad[np.argsort(-errors)[:worst]] = True
    ranks = rankdata(surprise)
    above = ranks[is_bad].sum() - worst * (worst + 1) / 2
    found = errors[np.argsort(-surprise, kind="stable")[:worst]].sum()
    return {
        "spearman": float(spearmanr(surprise, errors).statistic),
        "auroc": float(above / (worst * (len(errors) - worst))),
        "caught": float(found / errors[is_bad].sum()),
    }


def make_row(trained: TrainedModel, name: str, force: float) -> Row:
    """Fit a scorer to a model; return its figures by the name of the test set.

    force: CPU seconds of the forces of a batch.
    """
    started = time.process_time()
    scorer = SCORERS[name](trained)
    fit = time.process_time() - started
    if name == "committee of 4":
        fit += trained.model.facts["cpu_seconds"] * (MEMBERS - 1) / MEMBERS
    batch = trained.heldout.select(range(_BATCH))
    predictions = trained.predict(batch)
    cost = _cpu_seconds(lambda: scorer.score(batch, predictions))
    row: Row = {"fit": fit, "cost": cost / force}
    for test, (labels, found) in trained.tested.items():
        surprise = scorer.score(labels.batch, found)
        row[test] = error_figures(
            surprise, largest_force_errors(labels.batch, found.forces, labels.forces)
        )
    return row


def force_seconds(trained: TrainedModel) -> float:
    """Return the CPU seconds of the forces of a batch, with descriptors."""
    batch = trained.heldout.select(range(_BATCH))
    return _cpu_seconds(lambda: trained.predict(batch))


def _cpu_seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return median(times)


def summary_rows(rows: Rows, keys: Mapping[str, Sequence[str]], test: str) -> list[Row]:
    """Return a row for each scorer: means over seeds, with the lowest."""
    out = []
    for name, own in keys.items():
        done = [rows[key] for key in own if key in rows]
        if not done:
            continue
        shown: Row = {"scorer": name, "seeds": len(done)}
        for figure in ("spearman", "auroc", "caught"):
            found = [row[test][figure] for row in done]
            shown[figure] = f"{np.mean(found):.3f} ({min(found):.3f})"
        shown["cost"] = float(np.mean([row["cost"] for row in done]))
        shown["fit, s"] = float(np.mean([row["fit"] for row in done]))
        out.append(shown)
    return out


def row_key(given: Namespace, pool: str, draw: str, seed: int, name: str) -> str:
    """Return the key of a row: all that it depends on."""
    return f"{model_file(given, pool, draw, seed).stem}/{name}"


def show_rows(given: Namespace, rows: Rows) -> None:
    """Print a table for each pool, draw and set of test frames."""
    for pool in given.pools:
        for draw in given.draws:
            keys = {
                name: [row_key(given, pool, draw, seed, name) for seed in given.seed]
                for name in SCORERS
            }
            first = next((x for own in keys.values() for x in own if x in rows), None)
            if first is None:
                continue
            for test in (x for x, value in rows[first].items() if type(value) is dict):
                title = f"{pool}, trained on {draw} frames, tested on: {test}"
                show(make_table(title, summary_rows(rows, keys, test)))


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of h2co/")
    add("--out", type=Path, required=True, help="the folder of models and rows")
    add("--pools", nargs="+", default=[*POOLS, "xtb-ethanol"])
    add("--draws", nargs="+", choices=DRAWS, default=list(DRAWS))
    add("--scorers", nargs="+", choices=list(SCORERS), default=list(SCORERS))
    add("--seed", type=int, nargs="+", default=list(range(3)))
    add("--cheap", type=int, default=400, help="cheap labels")
    add("--expensive", type=int, default=80, help="of them with an expensive one too")
    add("--train", action="store_true", help="train models only")
    add("--steps", type=int, default=1000, help="training steps of a model")
    add("--table", action="store_true", help="show what the folder holds")
    given = parser.parse_args()
    if given.quick:
        given.cheap, given.expensive, given.steps, given.seed = 100, 20, 50, [0]
        given.pools = given.pools[:1]
    rows = Rows(given.out / "uncertainty.jsonl")
    if not given.table:
        make_rows(given, rows)
    show_rows(given, rows)


def make_rows(given: Namespace, rows: Rows) -> None:
    """Train the models and make the rows that are missing."""
    for name in given.pools:
        pool = open_pool(given, name)
        for seed in given.seed:
            for draw in given.draws:
                own = model(given, pool, draw, seed)
                missing = [
                    scorer
                    for scorer in (() if given.train else given.scorers)
                    if row_key(given, name, draw, seed, scorer) not in rows
                ]
                if not missing:
                    continue
                amounts = (given.cheap, given.expensive)
                drawn = draw_frames(pool, draw, seed, *amounts)
                trained = TrainedModel(own, pool, drawn)
                force = force_seconds(trained)
                for scorer in missing:
                    key = row_key(given, name, draw, seed, scorer)
                    rows[key] = make_row(trained, scorer, force)


if __name__ == "__main__":
    main()
