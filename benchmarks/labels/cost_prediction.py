"""Prediction of label costs for molecules that were not measured.

    python -m benchmarks.labels.cost_prediction [--quick] [--work FOLDER] [--json FILE]

labels small molecules at several levels, fits what a label costs on some of them and
predicts the others. Labels are kept in FOLDER; a second run only reads them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.programs import level_cost
from benchmarks.common import make_parser, make_table, show, write_json
from benchmarks.labels.cost_measurements import (
    FULL,
    LEVELS,
    MOLECULES,
    QUICK,
    MeasuredCost,
    measure_costs,
    rattled_frame,
)

GOOD_FACTOR = 1.5  # the factor that is aimed at
LABELS = 10  # to learn from

Labels: TypeAlias = Sequence[tuple[Frame, Label]]
Price: TypeAlias = Callable[[Frame], float]
CostsByMolecule: TypeAlias = Mapping[str, list[MeasuredCost]]


# --- three forms of a price ----------------------------------------------------------


def given_power(level: Level, labels: Labels) -> Price:
    """Fit seconds ~ (orbitals of a minimal basis) ** (power that theory gives)."""
    power = {"mp2": 5.0, "ccsd": 6.0, "ccsd(t)": 7.0}
    steep = power.get(level.settings["method"], 3.0)
    logs = [
        np.log(x.cpu_seconds) - steep * np.log(_minimal_basis_size(at))
        for at, x in labels
    ]
    return lambda at: float(np.exp(np.median(logs)) * _minimal_basis_size(at) ** steep)


def free_power(level: Level, labels: Labels) -> Price:
    """Fit a power law in functions of the basis, pulled towards usual exponents.

    It is a ridge regression in logarithms.
    """
    size = level_cost(level, labels).size
    powers = {"hf": 2.6, "mp2": 3.4, "ccsd": 3.8, "ccsd(t)": 5.3}
    mean = powers.get(level.settings["method"], 2.2)
    x = np.log([size(at) for at, _ in labels])
    y = np.log([label.cpu_seconds for _, label in labels])
    dx, dy, ridge = x - x.mean(), y - y.mean(), 0.5
    steep = (dx @ dy + ridge * mean) / (dx @ dx + ridge)
    return lambda at: float(np.exp(y.mean() + steep * (np.log(size(at)) - x.mean())))


def overhead_and_power(level: Level, labels: Labels) -> Price:
    """Fit alloop's own model: an overhead and a power law, both with priors."""
    return level_cost(level, labels).seconds


FORMS = {
    "given power": given_power,
    "free power": free_power,
    "overhead and power": overhead_and_power,
}


def _minimal_basis_size(at: Frame) -> float:
    return float(sum(1 if z < 3 else 5 for z in at.numbers))


# --- scores --------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Factors by which predictions were off (larger over smaller).

    learnt: from ten labels of one molecule, five of each of two, all labels of all
    other molecules, or the molecule's own earlier frames.
    """

    level: str
    learnt: str
    form: str
    predictions: int
    median: float
    worst: float
    within: float


def score_predictions(rows: Sequence[MeasuredCost]) -> Iterator[Score]:
    """Yield scores by level, training labels and form; "all" levels together last."""
    offs: dict[tuple[str, str, str], list[float]] = {}
    for level in dict.fromkeys(row.level for row in rows):
        measured: dict[str, list[MeasuredCost]] = {}
        for row in rows:
            if row.level == level and row.seconds is not None:
                measured.setdefault(row.molecule, []).append(row)
        for form in FORMS:
            for learnt, off in _tasks(level, measured, form):
                offs.setdefault((level, learnt, form), []).append(off)
    for (_, learnt, form), some in list(offs.items()):
        offs.setdefault(("all", learnt, form), []).extend(some)
    for key, every in offs.items():
        good = float(np.mean(np.array(every) <= GOOD_FACTOR))
        yield Score(*key, len(every), float(np.median(every)), max(every), good)


def _tasks(
    level: str, measured: CostsByMolecule, form: str
) -> Iterator[tuple[str, float]]:
    """Yield factors for every choice of molecules to learn from."""
    closed = [name for name in measured if not MOLECULES[name]]
    for count, words in ((1, "one molecule"), (2, "two molecules")):
        for names in combinations(closed, count):
            costs = [row for name in names for row in measured[name][: LABELS // count]]
            for name in {*closed} - {*names}:
                yield words, _error_factor(level, costs, measured[name], form)
    for pool, words in ((closed, "all others"), (list(measured), "with open shells")):
        for name in pool if len(pool) > 1 else ():
            costs = [row for other in pool if other != name for row in measured[other]]
            yield words, _error_factor(level, costs, measured[name], form)
    for rows in measured.values():
        if len(rows) > 1:
            yield "own frames", _error_factor(level, rows[:-1], rows[-1:], form)


def _error_factor(
    level: str, costs: Sequence[MeasuredCost], hidden: Sequence[MeasuredCost], form: str
) -> float:
    price = FORMS[form](LEVELS[level], [row.known for row in costs])
    truth = float(np.median([row.seconds for row in hidden if row.seconds]))
    ratio = price(rattled_frame(hidden[0].molecule, 0)) / truth
    return max(ratio, 1 / ratio)


# --- what is shown -------------------------------------------------------------------


def main() -> None:
    """Measure, judge, show."""
    parser = make_parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/price"))
    options = parser.parse_args()
    scores = list(
        score_predictions(measure_costs(options.work, QUICK if options.quick else FULL))
    )
    used = [_score_row(score) for score in scores if score.form == "overhead and power"]
    forms = [_score_row(score) for score in scores if score.level == "all"]
    show(
        make_table(
            "What alloop uses, level by level", [_drop_key(x, "form") for x in used]
        )
    )
    show(
        make_table(
            "All levels, by form of the price", [_drop_key(x, "level") for x in forms]
        )
    )
    write_json(options.json, {"scores": [asdict(score) for score in scores]})


def _score_row(score: Score) -> dict[str, object]:
    words = {
        "learnt": "learnt from",
        "median": "median factor",
        "worst": "worst factor",
    }
    told = {words.get(key, key): value for key, value in asdict(score).items()}
    told[f"within {GOOD_FACTOR}"] = f"{told.pop('within'):.0%}"
    return told


def _drop_key(row: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != key}


if __name__ == "__main__":
    main()
