"""Does the loop spend labels better than no loop? Campaigns on frozen pools.

    python -m benchmarks.accuracy.selection.active --pool ethanol --out FOLDER
    python -m benchmarks.accuracy.selection.active --data DIR --out FOLDER
    python -m benchmarks.accuracy.selection.active --out FOLDER --table

A pool has labels at both levels in a table, so that a campaign costs its trainings
only; candidates are the pool's unlabelled frames, scored, in place of frames of MD. All
else is the campaign's own code. Pools in benchmarks/data are GFN2-xTB under HF/def2-SVP
(see `make_pools`); for `formaldehyde` DIR holds h2co/*.npz (Käser et al., J. Phys.
Chem. A 124, 8853, 2020). `useless-cheap` is the same with cheap labels of other frames.

Every arm has the same price to spend, at the mean measured CPU seconds of a label or
at --ratio. Labels of control and held-out frames are paid; there is no validation set.
Arms of one seed begin with the same frames, of normal modes where the pool has some.
Errors are mean absolute force components on test frames that were drawn before, at the
expensive level, meV/Å.

--quick compares the arms `campaign` and `random` with a quarter of the labels, an
eighth of the steps and one seed.

A row (one arm, one seed) is a line in FOLDER/active.jsonl, written when it is done:
what is there is skipped. The table shows, for the last generation, the geometric mean
over seeds and its ratio to random selection from the same pool, paired by seed, with a
90 % bootstrap interval, the share of the oracle's gain, the price beside random
selection's, and the expensive labels after which an arm is as good as random selection
is in the end.
"""

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool
from benchmarks.accuracy.selection.arms import ARMS, Arm
from benchmarks.accuracy.selection.table_campaign import TableCampaign, pool_setup
from benchmarks.common import Row, Rows, make_parser, make_table, show

_DRAWS = 2000  # of the bootstrap
# cheap and expensive labels, trainings, and steps of each, where none are given
AMOUNTS = {
    "formaldehyde": (300, 60, 4, 1000),
    "useless-cheap": (300, 60, 4, 1000),
    "ethanol": (240, 60, 3, 1500),
    "molecules": (384, 96, 3, 1500),
}
# --quick divides them by
QUICK = {"cheap": 4, "expensive": 4, "generations": 1, "steps": 8}


def campaign_settings(
    options: Namespace, arm: Arm, prices: Mapping[str, float]
) -> dict[str, Any]:
    """Return the part of the campaign file that the amount of money decides.

    What an arm saves or spends on cheap labels changes its expensive ones.
    """
    parts = options.generations
    first = {"cheap": options.cheap // parts, "expensive": options.expensive // parts}
    cheap = round(arm.cheap * options.cheap)
    spared = (options.cheap - cheap) * prices["cheap"]
    expensive = options.expensive + round(spared / prices["expensive"])
    training = {"every": options.expensive // parts, **stage_steps(options.steps)}
    if not cheap:
        first["cheap"] = 0
        training = {"every": training["every"], "kind": "standard", "last": 1}
        training["steps"] = options.steps
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
    return {"kind": "asteroid", "last": 1, **steps}


def make_row(pool: LabelledPool, options: Namespace, name: str, seed: int) -> Row:
    """Run the campaign of an arm and a seed; return its generations."""
    arm, prices = ARMS[name], pool.prices(options.ratio)
    means = {key: float(price[pool.chosen].mean()) for key, price in prices.items()}
    settings = {"seed": seed, **campaign_settings(options, arm, means)}
    setup = pool_setup(pool, settings, arm.changes)
    started = time.process_time()
    campaign = TableCampaign(pool, setup, arm, prices)
    generations = campaign.run()
    row = {"cpu_s": time.process_time() - started, "generations": generations}
    return {**row, "parts": campaign.parts} if campaign.parts else row


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
    for arm, by_seed in rows.items():
        seeds = sorted(set(by_seed) & set(rows["random"]))
        if not seeds:
            continue
        ours, random = errors(arm, seeds), errors("random", seeds)
        ratio, low, high = bootstrap_ratio(ours, random)
        share = float("nan")
        both = [s for s in seeds if s in rows.get("oracle", {})]
        if both:
            gain = np.log(np.divide(errors("oracle", both), errors("random", both)))
            ratios = np.log(np.divide(errors(arm, both), errors("random", both)))
            share = float(ratios.mean() / gain.mean())
        needed = [
            labels_to_error(rows[arm][s]["generations"], test, target)
            for s, target in zip(seeds, random, strict=True)
        ]
        last = [rows[arm][s]["generations"][-1] for s in seeds]
        random_prices = [rows["random"][s]["generations"][-1]["price"] for s in seeds]
        prices = np.divide([row["price"] for row in last], random_prices)
        out.append(
            {
                "arm": arm,
                "seeds": len(seeds),
                "labels": float(np.mean([row["expensive"] for row in last])),
                "price": float(prices.mean()),
                "meV/Å": 1e3 * float(np.exp(np.log(ours).mean())),
                "to random": ratio,
                "from": low,
                "to": high,
                "oracle's gain": share,
                "labels needed": float(np.median(needed)),
            }
        )
    return out


def make_rows(options: Namespace, rows: Rows) -> None:
    """Make the rows that are missing."""
    pool = POOLS[options.pool](options.data)
    arms = [
        arm for arm in options.arms if pool.plain is not None or not ARMS[arm].plain
    ]
    for seed in options.seed:
        for arm in arms:
            name = row_key(options, arm, seed)
            if name not in rows:
                rows[name] = make_row(pool, options, arm, seed)
                last = rows[name]["generations"][-1]
                show(name, {test: last[test]["force_mae"] for test in pool.tests})


def row_key(options: Namespace, arm: str, seed: int) -> str:
    """Return the key of a row: all that it depends on."""
    amounts = (options.cheap, options.expensive, options.ratio or "measured")
    training = (options.generations, options.steps)
    return "/".join(map(str, (options.pool, *amounts, *training, arm, seed)))


def show_rows(options: Namespace, rows: Rows) -> None:
    """Print a table for each set of test frames."""
    by_arm: dict[str, dict[int, Row]] = {}
    for arm in ARMS:
        keys = {seed: row_key(options, arm, seed) for seed in options.seed}
        done = {seed: rows[key] for seed, key in keys.items() if key in rows}
        if done:
            by_arm[arm] = done
    if "random" not in by_arm:
        show("expected rows of the arm `random`, to which all others are compared")
        return
    last = next(iter(by_arm["random"].values()))["generations"][-1]
    for test in (name for name, value in last.items() if isinstance(value, dict)):
        show(
            make_table(
                f"{options.pool}, test frames: {test}", summary_rows(by_arm, test)
            )
        )


def complete_amounts(options: Namespace) -> None:
    """Fill in what the command line leaves open."""
    amounts = AMOUNTS[options.pool]
    if options.seed is None:
        options.seed = [0] if options.quick else list(range(5))
    if options.arms is None:
        options.arms = ["random", "campaign"] if options.quick else list(ARMS)
    for (name, part), amount in zip(QUICK.items(), amounts, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, amount // part if options.quick else amount)
    if options.ratio is None and options.pool in ("formaldehyde", "useless-cheap"):
        options.ratio = 100.0  # nobody measured it


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of h2co/")
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--pool", choices=list(POOLS), default="formaldehyde")
    add("--arms", nargs="+", choices=list(ARMS))
    add("--seed", type=int, nargs="+", help="by default 0 to 4")
    add("--cheap", type=int, help="cheap labels")
    add("--expensive", type=int, help="expensive labels")
    add("--ratio", type=float, help="price of an expensive label in cheap ones")
    add("--generations", type=int, help="trainings of a campaign")
    add("--steps", type=int, help="training steps of a generation")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    complete_amounts(options)
    rows = Rows(options.out / "active.jsonl")
    if not options.table:
        make_rows(options, rows)
    show_rows(options, rows)


if __name__ == "__main__":
    main()
