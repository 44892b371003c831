"""Medians and spread over seeds, each against standard training, beside the paper."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from benchmarks.accuracy.asteroid.arms import FULL, default_labels
from benchmarks.accuracy.asteroid.rows import Row, validation_error

# Bukharin et al., ICML 2023: GemNet, test error in kcal/mol/Å with 200 CC labels.
# Table 3, and a row each of Table 2 (frames without labels) and 5 (several molecules).
PAPER: Mapping[str, Mapping[str, float]] = {
    "ethanol": {
        "standard": 0.351,
        "no-ft": 5.107,
        "no-bat": 0.183,
        "asteroid": 0.176,
        "score": 0.314,
        "multi": 0.269,
    },
    "benzene": {
        "standard": 0.074,
        "no-ft": 3.252,
        "no-bat": 0.064,
        "asteroid": 0.059,
        "score": 0.093,
        "multi": 0.05,
    },
    "aspirin": {
        "standard": 1.554,
        "no-ft": 4.670,
        "no-bat": 1.095,
        "asteroid": 0.908,
        "score": 0.928,
        "multi": 0.716,
    },
}
FIGURES = ("stopping", "choosing", "test")  # force MAE on these sets
HEADS = ("stopping [950:1000]", "choosing [400:450]", "test")
_TASK = ("molecule", "network", "ratio", "budget", "multi", "level")


def lines(rows: Sequence[Row]) -> Iterable[str]:
    """Yield the lines of the table of a folder's rows, task by task."""
    for task, members in groupby(sorted(rows, key=_sort_key), key=_task):
        group = list(members)
        standard = _standard_rows(rows, group[0])
        molecule, network, ratio, budget, multi, level = task
        more = ", multi" * multi + f", {level}" * bool(level)
        yield f"{molecule}, {network}, ratio {ratio}, {budget}{more}"
        heads = "".join(f"{head:28}" for head in HEADS)
        yield f"  {'arm, batch':24}  facts    seeds   {heads}   steps   CPU s"
        yield from _arm_lines(group, standard)
        yield from _paper_lines(molecule)
        yield ""


def _standard_rows(rows: Sequence[Row], other: Row) -> list[Row]:
    """Return the rows of standard training with 250 labels, for comparison.

    It sees no cheap labels and so is the same at every ratio; of several ways of it,
    other batches or optimisers, the one that errs least on the validation frames.
    """
    names = ("molecule", "network", "budget")
    same = [row for row in rows if all(row[x] == other[x] for x in names)]
    plain = [x for x in same if (x["arm"], x["expensive"]) == ("standard", FULL)]
    ways = groupby(sorted(plain, key=_sort_key), key=lambda row: row["facts"])
    arms = [list(members) for _, members in ways]
    return min(arms, key=lambda way: median(map(validation_error, way)), default=[])


def _arm_lines(rows: list[Row], standard: list[Row]) -> Iterable[str]:
    key = lambda row: (row["arm"], row["facts"])  # noqa: E731
    for (_, facts), members in groupby(rows, key=key):
        group = list(members)
        arm = _arm_title(group[0])
        cells = "".join(f"{_format_cell(group, standard, what):28}" for what in FIGURES)
        steps = median(row["steps"] for row in group)
        seconds = median(row["cpu_seconds"] for row in group)
        yield (
            f"  {arm:24}  {facts}  {len(group):3}   {cells}{steps:8.0f} {seconds:7.0f}"
        )


def _arm_title(row: Row) -> str:
    """Return the arm with its batch, and what is not as usual in it."""
    gammas = [2.0] if row["arm"] == "asteroid" else row["gammas"]
    extras = (
        row["optimiser"].removeprefix("muon"),
        f"γ {row['gammas'][0]:g}" * (row["gammas"] != gammas),
        f"{row['expensive']} labels" * (row["expensive"] != default_labels(row["arm"])),
    )
    return " ".join([row["arm"], str(row["batch"]), *filter(None, extras)])


def _format_cell(rows: list[Row], standard: list[Row], name: str) -> str:
    """Return the median (low-high) and its change against standard training in %."""
    ours, theirs = (_values(x, name) for x in (rows, standard))
    if not ours:
        return ""
    text = _format_error(median(ours))
    if len(ours) > 1:
        text += f" ({_format_error(min(ours))}-{_format_error(max(ours))})"
    if theirs:
        text += f" {100 * (median(ours) / median(theirs) - 1):+.0f} %"
    return text


def _format_error(error: float) -> str:
    """Return three digits of an error."""
    return f"{error:.3f}" if error >= 0.1 else f"{error:.4f}"


def _values(rows: list[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _paper_lines(molecule: str) -> Iterable[str]:
    figures = PAPER.get(molecule, {})
    for arm, value in figures.items():
        change = 100 * (value / figures["standard"] - 1)
        yield f"  paper: {arm:12} {value:.3f} on its test set, {change:+.0f} %"


def _task(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name, "") for name in _TASK)


def _sort_key(row: Row) -> tuple[Any, ...]:
    return (*_task(row), row["arm"], row["facts"], row["seed"])
