"""Do limits of errors hold? Surprise as an error in eV/Å, against true errors.

    python -m benchmarks.accuracy.uncertainty.calibration --data DIR --out FOLDER
    python -m benchmarks.accuracy.uncertainty.calibration --out FOLDER --table

DIR holds h2co/*.npz (Käser et al., J. Phys. Chem. A 124, 8853, 2020). A row is one
training: a generation on `--cheap` and `--expensive` labels of a random part of the
frozen pool, with its surprise and its largest force error on 400 other frames of the
pool and on the 1000 test frames, drawn before. Rows lie in FOLDER/calibration.jsonl,
written when they are done: what is there is skipped.

The table is made from them. In distribution (`all`), these 1400 frames are divided at
random 20 times: limits from n, judged on 1000 others. `hot`: limits from n of the 400,
judged on the test frames of the highest energies, which are not like those. It shows
the share of frames whose error lies below its limit: mean, the lowest and highest mean
of a seed, standard deviation of one division; the median of limit over error, and of
one limit for all frames (the conformal quantile of their errors) over error; and what
`flag: {error: E}` does with E at the 90th percentile of the errors: the share of frames
that it flags, and of those above E.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import TrainingData
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.evaluation import TrainingInputs, train_generation
from alloop.generation import Generation
from alloop.scores.calibrate import conformal_quantile
from alloop.scores.error_limits import fit_error_limits
from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool
from benchmarks.accuracy.selection.active import stage_steps
from benchmarks.accuracy.selection.table_campaign import pool_setup
from benchmarks.common import Row, Rows, make_parser, make_table, show

SCORERS = ("leverage", "q-residual", "committee")
_HELDOUT = 100  # frames on which the scorer is standardised
_CHECKED = 400  # frames on which limits may be fitted
_CASES = ((400, 0.9), (400, 0.8), (400, 0.95), (100, 0.9), (30, 0.9))
_DIVISIONS = 20


def make_row(pool: LabelledPool, options: Namespace, scorer: str, seed: int) -> Row:
    """Train a generation; return its surprise and its errors."""
    training = {"kind": "asteroid", **stage_steps(options.steps)}
    settings = {"seed": seed, "training": training, "flag": {"kind": scorer}}
    worker = pool_setup(pool, settings, {}).worker_settings
    order = random_stream(seed, "calibration").permutation(pool.chosen)
    parts = np.cumsum([options.expensive, options.cheap - options.expensive, _HELDOUT])
    first, rest, heldout, free = np.split(order, parts)
    inputs = TrainingInputs(
        data=TrainingData(
            pool.label_set("cheap", np.concatenate([first, rest])),
            pool.label_set("expensive", first),
        ),
        heldout=pool.label_set("cheap", heldout).batch,
        scoring=worker.scoring,
        seed=seed,
        name="train/1",
    )
    generation = train_generation(worker.trainer, inputs).generation
    sets = {"checked": free[:_CHECKED], **pool.tests}
    return {name: _scored(generation, pool, indices) for name, indices in sets.items()}


def _scored(generation: Generation, pool: LabelledPool, indices: np.ndarray) -> Row:
    labels = pool.label_set("expensive", indices)
    predictions = generation.predict(labels.batch, descriptors=True)
    assert generation.scorer is not None
    surprise = generation.scorer.score(labels.batch, predictions)
    errors = largest_force_errors(labels.batch, predictions.forces, labels.forces)
    return {
        "surprise": [float(f"{x:.6g}") for x in surprise],
        "errors": [float(f"{x:.6g}") for x in errors],
    }


def make_rows(options: Namespace, rows: Rows) -> None:
    """Make the rows that are missing."""
    pool = POOLS[options.pool](options.data)
    for seed in options.seed:
        for scorer in options.scorers:
            name = row_key(options, scorer, seed)
            if name not in rows:
                rows[name] = make_row(pool, options, scorer, seed)
                show(f"{name}: {np.median(rows[name]['all']['errors']):.3f} eV/Å")


def row_key(options: Namespace, scorer: str, seed: int) -> str:
    """Return the key of a row: all that it depends on."""
    amounts = (options.cheap, options.expensive, options.steps)
    return "/".join(map(str, (options.pool, *amounts, scorer, seed)))


def coverage_row(rows: Sequence[Row], test: str, n: int, promise: float) -> Row:
    """Return the coverage of limits from n frames on test frames, over seeds."""
    figures = [
        np.array([_judged(*part, promise) for part in _divisions(row, test, n)])
        for row in rows
    ]  # of each seed: (divisions, figures)
    held = [float(x[:, 0].mean()) for x in figures]
    _, ratio, single, flagged, caught = np.mean(
        [x.mean(axis=0) for x in figures], axis=0
    )
    return {
        "frames": test,
        "n": n,
        "promise": promise,
        "below": f"{np.mean(held):.3f}",
        "low": f"{min(held):.3f}",
        "high": f"{max(held):.3f}",
        "sd": f"{np.mean([x[:, 0].std() for x in figures]):.3f}",
        "limit/error": float(ratio),
        "one limit/error": float(single),
        "flagged": f"{flagged:.3f}",
        "of those above": f"{caught:.3f}",
    }


def _divisions(row: Row, test: str, n: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield surprise and error (2, frames) to fit limits on, and others to judge by."""
    checked, others = (
        np.array([row[name][x] for x in ("surprise", "errors")])
        for name in ("checked", test)
    )
    rng = np.random.default_rng(0)
    for _ in range(_DIVISIONS):
        if test == "all":  # exchangeable with the others
            every = rng.permutation(np.hstack([checked, others]), axis=1)
            yield every[:, :n], every[:, checked.shape[1] :]
        else:
            yield rng.permutation(checked, axis=1)[:, :n], others


def _judged(left_out: Floats, others: Floats, promise: float) -> list[float]:
    limits = fit_error_limits(left_out[0], left_out[1], promise)
    if limits is None:
        raise ValueError(f"{left_out.shape[1]} frames are too few to promise {promise}")
    surprise, errors = others
    said, large = limits.limits(surprise), float(np.quantile(errors, 0.9))
    flagged = surprise > limits.surprise_at(large)
    return [
        float(np.mean(errors <= said)),
        float(np.median(said / errors)),
        float(np.median(conformal_quantile(left_out[1], promise) / errors)),
        float(np.mean(flagged)),
        float(np.mean(flagged[errors > large])),
    ]


def show_rows(options: Namespace, rows: Rows) -> None:
    """Print a table for each scorer."""
    for scorer in options.scorers:
        keys = [row_key(options, scorer, seed) for seed in options.seed]
        seed_rows = [rows[key] for key in keys if key in rows]
        if not seed_rows:
            continue
        lines = [
            coverage_row(seed_rows, test, n, promise)
            for test in list(seed_rows[0])[1:]
            for n, promise in _CASES
        ]
        show(make_table(f"{options.pool}, {scorer}, {len(seed_rows)} seeds", lines))


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of h2co/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--pool", choices=list(POOLS), default="formaldehyde")
    add("--scorers", nargs="+", choices=SCORERS, default=["leverage", "q-residual"])
    add("--seed", type=int, nargs="+", default=[0, 1, 2])
    add("--cheap", type=int, default=500, help="cheap labels")
    add("--expensive", type=int, default=100, help="expensive labels")
    add("--steps", type=int, default=2000, help="training steps")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.quick:
        options.cheap, options.expensive, options.steps, options.seed = (
            100,
            20,
            100,
            [0],
        )
    rows = Rows(options.out / "calibration.jsonl")
    if not options.table:
        make_rows(options, rows)
    show_rows(options, rows)


if __name__ == "__main__":
    main()
