"""Figures of errors: learning curves, surprise, bias and parity."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.units import Floats
from alloop.report.analysis.campaign_facts import GenerationFacts
from alloop.report.analysis.comparison import TITLES, CampaignCurve
from alloop.report.analysis.model_errors import BiasData, ParityData
from alloop.report.analysis.uncertainty import ErrorPoint
from alloop.report.sections.svg import (
    COLOURS,
    FAINT,
    INK,
    MOST_POINTS,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    log_axis,
    spread_numbers,
)

_LINES = (
    ("#2f6fd0", "dot", "-"),
    ("#e07b39", "square", "--"),
    ("#8a8f98", "triangle", ":"),
)

GROUPS = {
    "test": ("validation set", "dot", COLOURS["test"]),
    "examination": ("examination", "square", COLOURS["examination"]),
    "chosen": ("chosen for surprise or bias", "triangle", COLOURS["training"]),
    "control": ("random control frames", "diamond", COLOURS["cheap"]),
}

_PARITIES = {
    "energies": (" − mean", "dot", COLOURS["test"]),
    "forces": ("", "small", COLOURS["expensive"]),
}


def label_curve(curves: Mapping[str, Sequence[GenerationFacts]]) -> Markup:
    """Draw the force error on the validation set against expensive labels."""
    return _draw_learning(curves, "expensive", "expensive labels learned from")


def cost_curve(curves: Mapping[str, Sequence[GenerationFacts]]) -> Markup:
    """Draw the force error on the validation set against the cost of labels."""
    return _draw_learning(curves, "label_cost", "CPU time of all labels, s")


def _draw_learning(
    curves: Mapping[str, Sequence[GenerationFacts]], what: str, name: str
) -> Markup:
    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = _draw_curves(ax, curves, what)
        ax.set_xlabel(name)
        ax.set_ylabel("force MAE, meV/Å")
        draw_legend(ax)
        return marks

    about = f"Learning curve: force error on the validation set against {name}"
    return draw_svg(f"learning-{what}", about, 2.9, paint)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[GenerationFacts]], what: str
) -> list[Marks]:
    marks = []
    for (name, generations), (colour, shape, dash) in zip(
        curves.items(), _LINES, strict=False
    ):
        tested = [x for x in generations if x.force_mae is not None]
        x = np.array([float(getattr(facts, what)) for facts in tested])
        y = np.array([1e3 * float(facts.force_mae or 0.0) for facts in tested])
        axes.plot(x, y, color=colour, linestyle=dash)
        label = TITLES.get(name, name)
        marks.append(add_points(axes, Marks(axes, x, y, colour, shape, (), label)))
        if name == next(iter(curves)):
            _number_points(axes, x, y, [facts.generation for facts in tested])
    log_axis(axes, "x", [float(x) for each in marks for x in each.x])
    log_axis(axes, "y", [float(y) for each in marks for y in each.y])
    axes.margins(0.12)
    return marks


def _number_points(axes: Axes, x: Floats, y: Floats, numbers: Sequence[int]) -> None:
    step = max(1, len(numbers) // 8)
    for at, error, number in list(zip(x, y, numbers, strict=True))[::step]:
        axes.annotate(
            str(number),
            (at, error),
            xytext=(4, 5),
            textcoords="offset points",
            color=_LINES[0][0],
        )


def surprise_figure(points: Sequence[ErrorPoint]) -> Markup:
    """Draw the largest force error against surprise, with the flag threshold.

    Frames are marked by their group.
    """
    shown = [x for x in points if np.isfinite(x.surprise) and np.isfinite(x.error)]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = [
            add_points(
                ax,
                Marks(
                    axes=ax,
                    x=np.array([x.surprise for x in chosen]),
                    y=np.array([1e3 * x.error for x in chosen]),
                    colour=colour,
                    shape=shape,
                    frames=[x.frame for x in chosen],
                    label=f"{label} ({len(chosen)})",
                ),
            )
            for group, (label, shape, colour) in GROUPS.items()
            if (chosen := [x for x in shown if x.group == group])
        ]
        log_axis(ax, "y", [1e3 * x.error for x in shown])
        log_axis(ax, "x", [x.surprise for x in shown])
        _draw_threshold(ax, points)
        ax.set_xlabel("surprise (uncertainty) before the label came")
        ax.set_ylabel("largest force error, meV/Å")
        draw_legend(ax, ncols=1)
        return marks

    return draw_svg("surprise", "Surprise against true force error", 3.9, paint)


def _draw_threshold(axes: Axes, points: Sequence[ErrorPoint]) -> None:
    known = [x for x in points if x.threshold is not None and np.isfinite(x.threshold)]
    if not known:
        return
    last = max(known, key=lambda point: point.generation)
    axes.axvline(float(last.threshold or 0.0), color=INK, linewidth=1.0, dashes=(4, 3))
    axes.annotate(
        f" threshold, generation {last.generation}",
        (float(last.threshold or 0.0), 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(2, 4),
        textcoords="offset points",
    )


def bias_figure(biases: BiasData) -> Markup:
    """Draw histograms of bias by generation and of the levels' difference."""
    rows = [
        (f"generation {number}", biases.generation[number], COLOURS["cheap"])
        for number in spread_numbers(sorted(biases.generation))
    ]
    if len(biases.levels):
        rows.append(("cheap − expensive", biases.levels, COLOURS["expensive"]))
    bins = _bin_edges(np.concatenate([values for _, values, _ in rows]))

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
    return draw_svg("bias", about, 0.5 + 0.95 * len(rows), paint, rows=len(rows))


def _bin_edges(values: Floats) -> Floats:
    """Return 31 bin edges, in equal ratios where values span more than a factor 3."""
    positive = values[values > 0]
    if not len(positive):
        return np.linspace(0.0, 1e-3, 31)
    low, high = float(positive.min()), 1.001 * float(values.max())
    if high > 3.0 * low and len(positive) == len(values):
        return np.geomspace(low, high, 31)
    pad = 0.0 if low < 0.5 * high else 0.5 * (high - low)
    return np.linspace(max(0.0, float(values.min()) - pad), high + pad, 31)


def thinning_note(parity: ParityData) -> str:
    """Return the sentences of a caption on points that are not drawn."""
    steps = {
        "frames": _thinning_step(parity.energies[0]),
        "components": _thinning_step(parity.forces[0]),
    }
    return "".join(
        f" Of the {what}, one in {step} is drawn."
        for what, step in steps.items()
        if step > 1
    )


def parity_figures(parity: ParityData) -> list[Markup]:
    """Draw model against label on the validation set: energies and force components."""
    atoms = np.repeat(np.arange(len(parity.frames)), 3 * np.diff(parity.offsets))
    frames = np.array(parity.frames, dtype=np.str_)
    return [
        _draw_parity("energies", "eV", parity.energies, frames),
        _draw_parity("forces", "eV/Å", parity.forces, frames[atoms]),
    ]


def _draw_parity(
    what: str, unit: str, pair: tuple[Floats, Floats], frames: npt.NDArray[np.str_]
) -> Markup:
    label, model = (values[:: _thinning_step(values)] for values in pair)
    leads = [str(frame) for frame in frames[:: _thinning_step(pair[0])]]
    zero, shape, colour = _PARITIES[what]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        both = np.concatenate(pair)
        pad = 0.05 * float(np.ptp(both)) or 0.1
        ends = [float(both.min()) - pad, float(both.max()) + pad]
        ax.plot(ends, ends, color=FAINT, linewidth=1.2)
        ax.set_xlim(*ends)
        ax.set_ylim(*ends)
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
        ax.set_title(what)
        ax.set_xlabel(f"label{zero}, {unit}")
        ax.set_ylabel(f"model{zero}, {unit}")
        return [add_points(ax, Marks(ax, label, model, colour, shape, leads))]

    about = f"{what.capitalize()} of the model against the labels of the validation set"
    return draw_svg(f"parity-{what}", about, 3.9, paint)


def _thinning_step(values: Floats) -> int:
    return 1 + len(values) // MOST_POINTS


def several_figures(curves: Sequence[CampaignCurve]) -> list[Markup]:
    """Draw the test force error of several campaigns against labels and costs."""
    what = {
        "expensive": "expensive labels learned from",
        "label_cost": "CPU time of all labels, s",
        "all_cost": "CPU time of everything, s",
    }
    return [_draw_several(curves, key, name) for key, name in what.items()]


def _draw_several(curves: Sequence[CampaignCurve], what: str, name: str) -> Markup:
    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        xs, ys = [], []
        for curve in curves:
            x = [float(getattr(facts, what)) for facts in curve.generations]
            y = [1e3 * facts.force_mae for facts in curve.generations]
            ax.plot(x, y, color=curve.colour, marker="o", ms=4.5, linestyle=curve.dash)
            xs += x
            ys += y
        log_axis(ax, "x", xs)
        log_axis(ax, "y", ys)
        ax.margins(0.1)
        ax.set_xlabel(name)
        ax.set_ylabel("force MAE, validation set, meV/Å")

    about = f"Learning curves: force error on the validation set against {name}"
    return draw_svg(f"several-{what}", about, 3.0, paint)
