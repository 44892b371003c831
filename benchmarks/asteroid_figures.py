"""Three figures of a folder's rows: ratios, γ (ASTEROID's Fig. 7), learning curves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.asteroid_arms import FULL, LESS
from benchmarks.asteroid_rows import Row, judged

Curve = Mapping[float, Sequence[float]]  # errors of all seeds, by what was changed
_USUAL = {"standard": FULL}


def draw(rows: Sequence[Row], file: Path) -> None:
    """The figures, side by side, in one file; its ending says which kind."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    ratios, gammas, labels = figure.subplots(1, 3)
    _panel(ratios, "cost of an expensive label in cheap ones", by_ratio(rows))
    _panel(gammas, "γ / spread of the bias", by_gamma(rows))
    _panel(labels, "expensive labels", by_labels(rows))
    labels.set_yscale("log")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def by_ratio(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Errors by cost ratio; standard training sees no cheap labels."""
    usual = [row for row in rows if _usual(row) and row["arm"] != "standard"]
    return _curves(usual, lambda row: float(row["ratio"]))


def by_gamma(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Errors of bias-aware weights by γ."""
    weighed = [row for row in rows if row["arm"] == "asteroid" and _labelled(row)]
    return _curves(weighed, lambda row: float(row["gammas"][0]))


def by_labels(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Learning curves, with their slopes on logarithmic axes in the names."""
    plain = [row for row in rows if row["arm"] in ("standard", "no-bat")]
    curves = _curves(plain, lambda row: float(row["expensive"]))
    long = {name: x for name, x in curves.items() if len(x) > 2}
    return {f"{name}, slope {slope(curve):.2f}": curve for name, curve in long.items()}


def slope(curve: Curve) -> float:
    """Of the medians' logarithms."""
    x, y = zip(*((k, median(errors)) for k, errors in curve.items()), strict=True)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _curves(rows: list[Row], of: Callable[[Row], float]) -> dict[str, Curve]:
    """What was changed against errors, by molecule, network, budget and arm."""
    found: dict[str, Curve] = {}
    for name, members in groupby(sorted(rows, key=_name), key=_name):
        points: dict[float, list[float]] = {}
        for row in sorted(members, key=of):
            points.setdefault(of(row), []).append(judged(row))
        found[name] = points
    return found


def _panel(axes: Axes, label: str, curves: Mapping[str, Curve]) -> None:
    """Medians as lines, all seeds as dots."""
    for name, curve in curves.items():
        places = list(curve)
        (line,) = axes.plot(places, [median(curve[x]) for x in places], label=name)
        dots = [(x, error) for x in places for error in curve[x]]
        axes.plot(*zip(*dots, strict=True), "o", ms=4, color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("force MAE on validation frames, kcal/mol/Å")
    if curves:
        axes.legend(fontsize="x-small")


def _name(row: Row) -> str:
    parts = (row["molecule"], row["network"], row["budget"], f"batch {row['batch']}")
    optimiser = row["optimiser"].removeprefix("muon")
    extra = (row.get("level"), "multi" * row["multi"], optimiser)
    return ", ".join([*parts, *filter(None, extra), row["arm"]])


def _labelled(row: Row) -> bool:
    """Whether a row saw as many expensive labels as the paper's."""
    return bool(row["expensive"] == _USUAL.get(row["arm"], LESS))


def _usual(row: Row) -> bool:
    return _labelled(row) and row.get("gammas", [2.0]) == [2.0]
