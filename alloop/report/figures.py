"""The report's figures: facts in, <svg> out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from alloop.core.units import Floats
from alloop.report.agreement import Biases, Parity
from alloop.report.canvas import COLOURS, FAINT, INK, draw, legend, log_axis
from alloop.report.compare import TITLES
from alloop.report.evidence import Point
from alloop.report.facts import Stand
from alloop.report.gantt import Bar, Lane, Shift, lanes, placed, rounds, shifts
from alloop.report.words import duration

_MOST = 4000  # points of a figure
_ROWS = 6  # generations that the bias figure shows
_LINES = (("#2f6fd0", "o", "-"), ("#e07b39", "s", "--"), ("#8a8f98", "^", ":"))
_GROUPS = {
    "test": ("test set", "o", COLOURS["test"]),
    "chosen": ("chosen for surprise or bias", "^", COLOURS["training"]),
    "control": ("random control frames", "D", COLOURS["cheap"]),
}
_PARTS = {
    "cheap labels": "cheap",
    "expensive labels": "expensive",
    "test labels": "test",
    "training": "training",
    "MD": "MD",
    "noise floor": "noise",
    "preparation": "preparation",
}


def learning_curve(curves: Mapping[str, Sequence[Stand]]) -> str:
    """Test force error against expensive labels and against the cost of labels."""

    def paint(axes: list[Axes]) -> None:
        for each, what in zip(axes, ("expensive", "label_cost"), strict=True):
            _curves(each, curves, what)
        axes[0].set_xlabel("expensive labels learned from")
        axes[1].set_xlabel("CPU seconds of all labels")
        axes[0].set_ylabel("test force MAE, meV/Å")
        legend(axes[0])

    about = "Learning curve: test force error by generation"
    return draw("learning", about, (1, 2, 2.9), paint)


def _curves(axes: Axes, curves: Mapping[str, Sequence[Stand]], what: str) -> None:
    xs, ys = [], []
    for (name, stands), (colour, marker, dash) in zip(
        curves.items(), _LINES, strict=False
    ):
        tested = [x for x in stands if x.force_mae is not None]
        x = [float(getattr(stand, what)) for stand in tested]
        y = [1e3 * float(stand.force_mae or 0.0) for stand in tested]
        label = TITLES.get(name, name)
        axes.plot(x, y, color=colour, marker=marker, linestyle=dash, label=label)
        xs += x
        ys += y
        if name == next(iter(curves)):
            _numbered(axes, x, y, [stand.generation for stand in tested])
    log_axis(axes, "x", xs)
    log_axis(axes, "y", ys)
    axes.margins(0.12)


def _numbered(
    axes: Axes, x: Sequence[float], y: Sequence[float], numbers: Sequence[int]
) -> None:
    step = max(1, len(numbers) // 8)
    for at, error, number in list(zip(x, y, numbers, strict=True))[::step]:
        axes.annotate(
            str(number),
            (at, error),
            xytext=(4, 5),
            textcoords="offset points",
            color=_LINES[0][0],
        )


def surprise(points: Sequence[Point]) -> str:
    """Largest force error against surprise, by group, with the flag threshold."""

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        shown = [x for x in points if np.isfinite(x.surprise) and np.isfinite(x.error)]
        for group, (label, marker, colour) in _GROUPS.items():
            chosen = [x for x in shown if x.group == group]
            if chosen:
                ax.scatter(
                    [x.surprise for x in chosen],
                    [1e3 * x.error for x in chosen],
                    s=26,
                    marker=marker,
                    color=colour,
                    alpha=0.75,
                    linewidths=0.0,
                    label=f"{label} ({len(chosen)})",
                )
        log_axis(ax, "y", [1e3 * x.error for x in shown])
        log_axis(ax, "x", [x.surprise for x in shown])
        _threshold(ax, points)
        ax.set_xlabel("surprise, as it was before the label came")
        ax.set_ylabel("largest force error on an atom, meV/Å")
        legend(ax)

    about = "Surprise against true force error"
    return draw("surprise", about, (1, 1, 3.5), paint)


def _threshold(axes: Axes, points: Sequence[Point]) -> None:
    known = [x for x in points if x.threshold is not None and np.isfinite(x.threshold)]
    if not known:
        return
    last = max(known, key=lambda point: point.generation)
    axes.axvline(float(last.threshold or 0.0), color=INK, linewidth=1.0, dashes=(4, 3))
    axes.annotate(
        f" flag threshold of generation {last.generation}",
        (float(last.threshold or 0.0), 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(2, 4),
        textcoords="offset points",
    )


def bias(biases: Biases) -> str:
    """Histograms of bias, a row each generation, and of the levels' difference."""
    rows = [
        (f"generation {number}", biases.generation[number], COLOURS["cheap"])
        for number in _some(sorted(biases.generation))
    ]
    if len(biases.levels):
        rows.append(("cheap − expensive", biases.levels, COLOURS["expensive"]))
    bins = _bins(np.concatenate([values for _, values, _ in rows]))

    def paint(axes: list[Axes]) -> None:
        for ax, (name, values, colour) in zip(axes, rows, strict=True):
            ax.hist(values, bins=bins.tolist(), color=colour, alpha=0.85)
            middle = float(np.median(values))
            ax.axvline(middle, color=INK, linewidth=1.0)
            ax.set_title(f"{name}: n = {len(values)}, median {middle:.3g} eV/Å")
            log_axis(ax, "x", bins.tolist())
            ax.set_xlim(bins[0], bins[-1])
            ax.locator_params(axis="y", nbins=3, integer=True)
            ax.margins(y=0.12)
            ax.tick_params(labelbottom=ax is axes[-1])
        axes[-1].set_xlabel("mean absolute force difference of a frame, eV/Å")

    about = "Histograms of the bias of cheap labels by generation"
    return draw("bias", about, (len(rows), 1, 0.5 + 0.95 * len(rows)), paint)


def _bins(values: Floats) -> Floats:
    """Edges of bins, in equal ratios where the values span more than a factor."""
    positive = values[values > 0]
    if not len(positive):
        return np.linspace(0.0, 1e-3, 31)
    low, high = float(positive.min()), 1.001 * float(values.max())
    if high > 3.0 * low and len(positive) == len(values):
        return np.geomspace(low, high, 31)
    pad = 0.0 if low < 0.5 * high else 0.5 * (high - low)
    return np.linspace(max(0.0, float(values.min()) - pad), high + pad, 31)


def _some(numbers: Sequence[int]) -> list[int]:
    """At most so many of them, first and last among them."""
    picks = np.linspace(0, len(numbers) - 1, min(_ROWS, len(numbers)))
    return [numbers[round(pick)] for pick in picks]


def thinned(parity: Parity) -> str:
    """What the caption says of points that are not drawn."""
    step = _step(parity.forces[0])
    return f" Of the force components, one in {step} is drawn." if step > 1 else ""


def agreement(parity: Parity) -> str:
    """Model against label on the test set: energies and force components."""

    def paint(axes: list[Axes]) -> None:
        _parity(axes[0], parity.energies, 22, COLOURS["test"])
        _parity(axes[1], parity.forces, 9, COLOURS["expensive"])
        axes[0].set_title("energies")
        axes[0].set_xlabel("label − mean, eV")
        axes[0].set_ylabel("model − mean, eV")
        axes[1].set_title("force components")
        axes[1].set_xlabel("label, eV/Å")
        axes[1].set_ylabel("model, eV/Å")

    about = "Energies and forces of the model against the labels of the test set"
    return draw("parity", about, (1, 2, 3.5), paint)


def _parity(axes: Axes, pair: tuple[Floats, Floats], size: float, colour: str) -> None:
    label, model = (values[:: _step(values)] for values in pair)
    both = np.concatenate(pair)
    pad = 0.05 * float(np.ptp(both)) or 0.1
    ends = [float(both.min()) - pad, float(both.max()) + pad]
    axes.plot(ends, ends, color=FAINT, linewidth=1.2)
    axes.scatter(label, model, s=size, color=colour, alpha=0.6, linewidths=0.0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)


def _step(values: Floats) -> int:
    return 1 + len(values) // _MOST


def spending(parts: Mapping[str, float]) -> str:
    """CPU seconds by part."""
    shown = {name: value for name, value in parts.items() if value > 0}
    total = sum(shown.values())

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        names = list(shown)[::-1]
        values = [shown[name] for name in names]
        colours = [COLOURS[_PARTS.get(name, "preparation")] for name in names]
        bars = ax.barh(names, values, color=colours, height=0.62)
        notes = [f"{duration(value)} · {value / total:.0%}" for value in values]
        ax.bar_label(bars, labels=notes, padding=5)
        ax.set_xlim(0.0, 1.25 * max(values))
        ax.set_xlabel("CPU seconds")
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)

    about = "CPU seconds by part of the campaign"
    return draw("spending", about, (1, 1, 0.7 + 0.32 * len(shown)), paint)


def gantt(bars: Sequence[Bar]) -> str:
    """What each worker did when; pauses between runs are cut out."""
    found = shifts(bars)
    rows = lanes(bars)

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        for lane in rows:
            _lane(ax, lane, found)
        _rounds(ax, bars, found)
        _clock(ax, found)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)), [lane.worker for lane in rows])
        ax.grid(visible=False, axis="y")
        ax.margins(x=0.01)
        handles = {bar.part for bar in bars}
        for part in (x for x in _PARTS if x in handles):
            ax.barh([0], [0], color=COLOURS[_PARTS[part]], label=part)
        legend(ax, ncols=7, handlelength=0.9, columnspacing=1.2)

    about = "What ran when on each worker"
    return draw("gantt", about, (1, 1, 1.0 + 0.3 * min(len(rows), 24)), paint)


def _lane(axes: Axes, lane: Lane, found: Sequence[Shift]) -> None:
    for part, spans in lane.spans(found).items():
        colour = COLOURS[_PARTS.get(part, "preparation")]
        axes.broken_barh(spans, (lane.row - 0.36, 0.72), color=colour, linewidth=0.0)
    for bar in lane.bars:
        if bar.part == "training":
            middle = (placed(bar.started, found) + placed(bar.ended, found)) / 2
            said = axes.text(middle, lane.row, str(bar.number), color="white")
            said.set(ha="center", va="center", clip_on=True)


def _rounds(axes: Axes, bars: Sequence[Bar], found: Sequence[Shift]) -> None:
    begun = rounds(bars)
    ticks = [placed(begun[number], found) for number in _some(sorted(begun))]
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [f"round {number}" for number in _some(sorted(begun))])
    above.tick_params(labelsize="x-small", length=3)


def _clock(axes: Axes, found: Sequence[Shift]) -> None:
    for shift in found[1:]:
        axes.axvline(shift.at, color=INK, linewidth=1.0, dashes=(1, 2))
        axes.annotate(
            f" paused {shift.paused}",
            (shift.at, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(1, 3),
            textcoords="offset points",
        )
    axes.set_xlabel("wall time of the runs, s")
