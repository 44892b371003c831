"""Does the loop spend labels better than no loop? Campaigns on frozen pools.

    python -m benchmarks.accuracy.active --data DIR --out FOLDER
    python -m benchmarks.accuracy.active --out FOLDER --table

DIR holds h2co/*.npz (Käser et al., J. Phys. Chem. A 124, 8853, 2020). A pool has labels
at both levels in a table, so that a campaign costs its trainings only; candidates are
the pool's unlabelled frames, scored, in place of frames of MD. All else is the
campaign's own code. Every arm has the same price to spend, control frames included, and
arms of one seed begin with the same frames. Errors are mean absolute force components
on test frames that were drawn before, at the expensive level, meV/Å.

A row (one arm, one seed) is a line in FOLDER/active.jsonl, written when it is done:
what is there is skipped. The table shows, for the last generation, the geometric mean
over seeds and its ratio to random selection from the same pool, paired by seed, with a
90 % bootstrap interval, the share of the oracle's gain, and the expensive labels after
which an arm is as good as random selection is in the end.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool
from benchmarks.accuracy.table_campaign import (
    Arm,
    TableCampaign,
    pool_setup,
    predicted_energy,
    true_error,
)
from benchmarks.common import Row, Rows, make_parser, make_table, show

_DRAWS = 2000  # of the bootstrap
ARMS: Mapping[str, Arm] = {
    "campaign": Arm(),
    "random": Arm({"flag": {"selection": "random"}}),
    "oracle": Arm({"flag": {"triage": "surprise"}}, true_error),
    "surprise": Arm({"flag": {"triage": "surprise"}}),
    "bias": Arm({"flag": {"triage": "bias"}}),
    "no-control": Arm({"flag": {"control": 0.0}}),
    "energy": Arm({"flag": {"triage": "surprise"}}, predicted_energy),
    "expensive": Arm(),
}


def campaign_settings(given: Namespace, arm: str) -> dict[str, Any]:
    """Return the part of the campaign file that the amount of money decides."""
    cheap, expensive = given.cheap, given.expensive
    first = {"cheap": cheap // 5, "expensive": expensive // 5}
    training = {"every": expensive // 5, **stage_steps(given.steps)}
    if arm == "expensive":
        training = {"every": expensive // 5, "kind": "standard", "steps": given.steps}
        expensive += round(cheap / given.ratio)
        cheap, first["cheap"] = 0, 0
    return {
        "budget": {"cheap": cheap, "expensive": expensive},
        "seeds": first,
        "training": training,
        "cluster": {"kind": "inline"},
    }


def stage_steps(total: int) -> dict[str, Any]:
    """Return the steps of two stages, three quarters of them on cheap labels."""
    teacher = total // 10  # goes to pretraining where no weights are wanted
    pretraining = 3 * total // 4 - teacher
    fine = total - teacher - pretraining
    steps = {"teacher": teacher, "pretrain": pretraining, "finetune": fine}
    return {"kind": "asteroid", **steps}


def make_row(pool: LabelledPool, given: Namespace, name: str, seed: int) -> Row:
    """Run the campaign of an arm and a seed; return its generations."""
    arm = ARMS[name]
    settings = {"seed": seed, **campaign_settings(given, name)}
    setup = pool_setup(pool, settings, arm.changes)
    prices = {"cheap": 1.0, "expensive": float(given.ratio)}
    return {"generations": TableCampaign(pool, setup, arm, prices).run()}


def bootstrap_ratio(
    ours: Sequence[float], theirs: Sequence[float]
) -> tuple[float, float, float]:
    """Return the geometric mean of paired ratios and its 90 % bootstrap interval."""
    logs = np.log(np.asarray(ours) / np.asarray(theirs))
    rng = np.random.default_rng(0)
    means = rng.choice(logs, (_DRAWS, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.05, 0.95]))
    return float(np.exp(logs.mean())), float(low), float(high)


def labels_to_error(generations: Sequence[Row], test: str, target: float) -> float:
    """Return the expensive labels at which the error falls to the target, or nan.

    Interpolated between generations in logarithms of both.
    """
    errors = [row[test]["force_mae"] for row in generations]
    counts = [row["expensive"] for row in generations]
    for (a, n), (b, m) in zip(
        zip(errors, counts, strict=True),
        zip(errors[1:], counts[1:], strict=True),
        strict=False,
    ):
        if b <= target < a:
            part = np.log(a / target) / np.log(a / b)
            return float(np.exp(np.log(n) + part * np.log(m / n)))
    return float(counts[0]) if errors[0] <= target else float("nan")


def summary_rows(rows: Mapping[str, Mapping[int, Row]], test: str) -> list[Row]:
    """Return a row for each arm: error, ratio to random, share of the oracle's gain."""

    def errors(arm: str, seeds: Sequence[int]) -> list[float]:
        return [rows[arm][s]["generations"][-1][test]["force_mae"] for s in seeds]

    out = []
    for arm, found in rows.items():
        seeds = sorted(set(found) & set(rows["random"]))
        if not seeds:
            continue
        ours, random = errors(arm, seeds), errors("random", seeds)
        ratio, low, high = bootstrap_ratio(ours, random)
        share = float("nan")
        both = [s for s in seeds if s in rows.get("oracle", {})]
        if both:
            gain = np.log(np.divide(errors("oracle", both), errors("random", both)))
            own = np.log(np.divide(errors(arm, both), errors("random", both)))
            share = float(own.mean() / gain.mean())
        needed = [
            labels_to_error(rows[arm][s]["generations"], test, target)
            for s, target in zip(seeds, random, strict=True)
        ]
        spent = [rows[arm][s]["generations"][-1]["expensive"] for s in seeds]
        out.append(
            {
                "arm": arm,
                "seeds": len(seeds),
                "labels": float(np.mean(spent)),
                "meV/Å": 1e3 * float(np.exp(np.log(ours).mean())),
                "to random": ratio,
                "from": low,
                "to": high,
                "oracle's gain": share,
                "labels needed": float(np.median(needed)),
            }
        )
    return out


def make_rows(given: Namespace, rows: Rows) -> None:
    """Make the rows that are missing."""
    pool = POOLS[given.pool](given.data)
    for seed in given.seed:
        for arm in given.arms:
            name = row_key(given, arm, seed)
            if name not in rows:
                rows[name] = make_row(pool, given, arm, seed)
                last = rows[name]["generations"][-1]
                show(name, {test: last[test]["force_mae"] for test in pool.tests})


def row_key(given: Namespace, arm: str, seed: int) -> str:
    """Return the key of a row: all that it depends on."""
    amounts = (given.cheap, given.expensive, given.ratio, given.steps)
    return "/".join(map(str, (given.pool, *amounts, arm, seed)))


def show_rows(given: Namespace, rows: Rows) -> None:
    """Print a table for each set of test frames."""
    found: dict[str, dict[int, Row]] = {}
    for arm in ARMS:
        keys = {seed: row_key(given, arm, seed) for seed in given.seed}
        done = {seed: rows[key] for seed, key in keys.items() if key in rows}
        if done:
            found[arm] = done
    if "random" not in found:
        show("expected rows of the arm `random`, to which all others are compared")
        return
    last = next(iter(found["random"].values()))["generations"][-1]
    for test in (name for name, value in last.items() if isinstance(value, dict)):
        show(
            make_table(f"{given.pool}, test frames: {test}", summary_rows(found, test))
        )


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of h2co/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--pool", choices=list(POOLS), default="formaldehyde")
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--seed", type=int, nargs="+", default=list(range(5)))
    add("--cheap", type=int, default=500, help="cheap labels")
    add("--expensive", type=int, default=100, help="expensive labels")
    add("--ratio", type=float, default=100.0, help="price of an expensive label")
    add("--steps", type=int, default=2000, help="training steps of a generation")
    add("--table", action="store_true", help="show what the folder holds")
    given = parser.parse_args()
    if given.quick:
        given.cheap, given.expensive, given.steps, given.seed = 100, 20, 100, [0]
    rows = Rows(given.out / "active.jsonl")
    if not given.table:
        make_rows(given, rows)
    show_rows(given, rows)


if __name__ == "__main__":
    main()
