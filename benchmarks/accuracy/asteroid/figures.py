"""Three figures of a folder's rows: ratios, γ (ASTEROID's Fig. 7), learning curves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy.asteroid.arms import default_labels
from benchmarks.accuracy.asteroid.rows import Row, validation_error

Curve = Mapping[float, Sequence[float]]  # errors of all seeds, by what was changed


def draw_figures(rows: Sequence[Row], file: Path) -> None:
    """Draw the figures side by side in one file; its ending says which kind."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    ratios, gammas, labels = figure.subplots(1, 3)
    _draw_panel(ratios, "cost of an expensive label in cheap ones", by_ratio(rows))
    _draw_panel(gammas, "γ / spread of the bias", by_gamma(rows))
    _draw_panel(labels, "expensive labels", by_labels(rows))
    labels.set_yscale("log")
    ratios.set_ylabel("force MAE on validation frames, kcal/mol/Å")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def by_ratio(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Return errors by cost ratio.

    Standard training sees no cheap labels: its errors are the same at all.
    """
    standard = _repeat_rows(
        [row for row in rows if _is_default(row)], "standard", "ratio"
    )
    return _with_others(
        "standard", _group_curves(standard, lambda row: float(row["ratio"]))
    )


def by_gamma(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Return errors of bias-aware weights by γ, beside those without weights."""
    kinds = ("asteroid", "no-bat")
    seen = [row for row in rows if row["arm"] in kinds and _has_default_labels(row)]
    seen = _repeat_rows(seen, "no-bat", "gammas")
    return _with_others("no-bat", _group_curves(seen, _gamma, ratio=True))


def by_labels(rows: Iterable[Row]) -> Mapping[str, Curve]:
    """Return learning curves, with their slopes on logarithmic axes in the names."""
    plain = [row for row in rows if row["arm"] in ("standard", "no-bat")]
    curves = _group_curves(plain, lambda x: float(x["expensive"]), ratio=True)
    return {f"{name}, slope {log_slope(x):.2f}": x for name, x in curves.items()}


def log_slope(curve: Curve) -> float:
    """Return the slope of the logarithms of the medians."""
    x, y = zip(*((k, median(errors)) for k, errors in curve.items()), strict=True)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _repeat_rows(rows: Sequence[Row], arm: str, fact: str) -> list[Row]:
    """Return the rows, those of an arm once for each value of a fact it ignores."""
    others = [row for row in rows if row["arm"] != arm]
    values = {str(row[fact]): row[fact] for row in others}.values()
    same = [row | {fact: x} for row in rows if row["arm"] == arm for x in values]
    return [*others, *same]


def _with_others(arm: str, curves: Mapping[str, Curve]) -> Mapping[str, Curve]:
    """Return the curves but for those of an arm that no other arm stands beside."""
    tasks = {name: name.partition(", ")[2] for name in curves}
    others = {task for name, task in tasks.items() if not name.startswith(f"{arm},")}
    return {name: x for name, x in curves.items() if tasks[name] in others}


def _group_curves(
    rows: Iterable[Row], of: Callable[[Row], float], *, ratio: bool = False
) -> dict[str, Curve]:
    """Return errors by `of` for all rows that are equal otherwise.

    With `ratio` the cost ratio must be equal too. One point is no curve.
    """

    def name(row: Row) -> str:
        return f"{_name(row)}, ratio {row['ratio']}" if ratio else _name(row)

    curves: dict[str, Curve] = {}
    for way, members in groupby(sorted(rows, key=name), key=name):
        points: dict[float, list[float]] = {}
        for row in sorted(members, key=of):
            points.setdefault(of(row), []).append(validation_error(row))
        if len(points) > 1:
            curves[way] = points
    return curves


def _draw_panel(axes: Axes, label: str, curves: Mapping[str, Curve]) -> None:
    """Draw medians as lines, all seeds as dots."""
    for name, curve in curves.items():
        places = list(curve)
        (line,) = axes.plot(places, [median(curve[x]) for x in places], label=name)
        dots = [(x, error) for x in places for error in curve[x]]
        axes.plot(*zip(*dots, strict=True), "o", ms=4, color=line.get_color())
    axes.set_xscale("log")
    ticks = sorted({x for curve in curves.values() for x in curve})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    if curves:
        axes.legend(fontsize="x-small", loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _name(row: Row) -> str:
    parts = (row["arm"], row["molecule"], row["network"], row["budget"])
    optimiser = row["optimiser"].removeprefix("muon")
    extra = (row.get("level"), "multi" * row["multi"], optimiser)
    return ", ".join([*parts, f"batch {row['batch']}", *filter(None, extra)])


def _gamma(row: Row) -> float:
    return float(row["gammas"][0])


def _has_default_labels(row: Row) -> bool:
    """Return whether a row saw as many expensive labels as the paper's."""
    return bool(row["expensive"] == default_labels(row["arm"]))


def _is_default(row: Row) -> bool:
    return _has_default_labels(row) and row.get("gammas", [2.0]) == [2.0]
