"""The figures of the report, drawn as <svg> elements."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.units import Floats
from alloop.report.analysis.comparison import TITLES
from alloop.report.analysis.costed_curves import CampaignCurve
from alloop.report.analysis.descriptor_map import DescriptorMap
from alloop.report.analysis.explorations import WalkerEnergy, WalkerMoment
from alloop.report.analysis.parity import BiasData, ParityData
from alloop.report.analysis.summary_facts import GenerationFacts
from alloop.report.analysis.timeline import (
    RunSpan,
    TaskBar,
    WorkerLane,
    axis_position,
    round_starts,
    run_spans,
    worker_lanes,
)
from alloop.report.analysis.uncertainty import ErrorPoint
from alloop.report.sections.svg import (
    COLOURS,
    FAINT,
    INK,
    PANEL,
    WIDE,
    Marks,
    draw_legend,
    draw_svg,
    log_axis,
    mark,
)
from alloop.report.text.formatting import duration_text

MOST = 2000  # points drawn in one figure, at most
_ROWS = 6  # generations in the bias figure, at most
_LINES = (("#2f6fd0", "o", "-"), ("#e07b39", "s", "--"), ("#8a8f98", "^", ":"))
GROUPS = {
    "test": ("frozen set", "dot", COLOURS["test"]),
    "examination": ("final examination", "square", COLOURS["examination"]),
    "chosen": ("chosen for surprise or bias", "triangle", COLOURS["training"]),
    "control": ("random control frames", "diamond", COLOURS["cheap"]),
}
MAP_GROUPS = {
    "proposed": ("proposed, no label", "small", "#8a8f98"),
    "labelled": ("first labels", "small", COLOURS["expensive"]),
    "flagged": ("flagged", "triangle", COLOURS["training"]),
    "control": ("random control", "diamond", COLOURS["cheap"]),
    "test": ("frozen set", "dot", COLOURS["test"]),
    "examination": ("final examination", "square", COLOURS["examination"]),
}
_PARITIES = {
    "energies": (" − mean", "dot", COLOURS["test"]),
    "forces": ("", "small", COLOURS["expensive"]),
}
_PARTS = {
    "cheap labels": "cheap",
    "expensive labels": "expensive",
    "frozen set": "test",
    "examination": "examination",
    "training": "training",
    "MD": "MD",
    "noise floor": "noise",
    "preparation": "preparation",
}


def learning_curve(curves: Mapping[str, Sequence[GenerationFacts]]) -> list[Markup]:
    """Draw the test force error against expensive labels and cost of labels."""
    what = {
        "expensive": "expensive labels learned from",
        "label_cost": "CPU seconds of all labels",
    }
    return [_learning(curves, key, name) for key, name in what.items()]


def _learning(
    curves: Mapping[str, Sequence[GenerationFacts]], what: str, name: str
) -> Markup:
    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        _draw_curves(ax, curves, what)
        ax.set_xlabel(name)
        ax.set_ylabel("force MAE, frozen set, meV/Å")
        draw_legend(ax)

    about = f"Learning curve: force error on the frozen set against {name}"
    return draw_svg(f"learning-{what}", about, 2.9, paint)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[GenerationFacts]], what: str
) -> None:
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
            _number_points(axes, x, y, [stand.generation for stand in tested])
    log_axis(axes, "x", xs)
    log_axis(axes, "y", ys)
    axes.margins(0.12)


def _number_points(
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


def surprise_figure(points: Sequence[ErrorPoint]) -> Markup:
    """Draw the largest force error against surprise, with the flag threshold.

    Frames are marked by their group.
    """
    shown = [x for x in points if np.isfinite(x.surprise) and np.isfinite(x.error)]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = [
            mark(
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
        ax.set_xlabel("surprise, as it was before the label came")
        ax.set_ylabel("largest force error on an atom, meV/Å")
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
        for number in _some_numbers(sorted(biases.generation))
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


def _some_numbers(numbers: Sequence[int]) -> list[int]:
    """Return at most `_ROWS` of the numbers, the first and the last among them."""
    picks = np.linspace(0, len(numbers) - 1, min(_ROWS, len(numbers)))
    return [numbers[round(pick)] for pick in picks]


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


def parity_figure(parity: ParityData) -> list[Markup]:
    """Draw model against label on the test set: energies and force components."""
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
        return [mark(ax, Marks(ax, label, model, colour, shape, leads))]

    about = f"{what.capitalize()} of the model against the labels of the test set"
    return draw_svg(f"parity-{what}", about, 3.9, paint)


def _thinning_step(values: Floats) -> int:
    return 1 + len(values) // MOST


def cost_figure(parts: Mapping[str, float]) -> Markup:
    """Draw the CPU seconds by part."""
    shown = {name: value for name, value in parts.items() if value > 0}
    total = sum(shown.values())

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        names = list(shown)[::-1]
        values = [shown[name] for name in names]
        colours = [COLOURS[_PARTS.get(name, "preparation")] for name in names]
        bars = ax.barh(names, values, color=colours, height=0.62)
        notes = [f"{duration_text(value)} · {value / total:.0%}" for value in values]
        ax.bar_label(bars, labels=notes, padding=5)
        ax.set_xlim(0.0, 1.45 * max(values))
        ax.set_xlabel("CPU seconds")
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)

    about = "CPU seconds by part of the campaign"
    return draw_svg("spending", about, 0.6 + 0.3 * len(shown), paint)


def timeline_figure(bars: Sequence[TaskBar]) -> list[Markup]:
    """Draw the tasks of each worker over time, without pauses between runs.

    There are two drawings, a wide one for pages and a narrow one for phones.
    """
    wide, narrow = _gantt(bars, WIDE, 7), _gantt(bars, PANEL, 3)
    shown = (("page-only", wide), ("phone-only", narrow))
    return [Markup('<div class="{}">{}</div>').format(*each) for each in shown]


def _gantt(bars: Sequence[TaskBar], width: float, columns: int) -> Markup:
    found = run_spans(bars)
    rows = worker_lanes(bars)

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        for lane in rows:
            _draw_lane(ax, lane, found)
        _draw_rounds(ax, bars, found)
        _draw_clock(ax, found)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)), [lane.worker for lane in rows])
        ax.grid(visible=False, axis="y")
        ax.margins(x=0.01)
        handles = {bar.part for bar in bars}
        for part in (x for x in _PARTS if x in handles):
            ax.barh([0], [0], color=COLOURS[_PARTS[part]], label=part)
        draw_legend(ax, ncols=columns, handlelength=0.9, columnspacing=1.2)

    about = "What ran when on each worker"
    height = 1.0 + 0.3 * min(len(rows), 24) + 0.4 * (width < WIDE)
    return draw_svg(f"gantt-{columns}", about, height, paint, width=width)


def _draw_lane(axes: Axes, lane: WorkerLane, found: Sequence[RunSpan]) -> None:
    for part, spans in lane.spans(found).items():
        colour = COLOURS[_PARTS.get(part, "preparation")]
        axes.broken_barh(spans, (lane.row - 0.36, 0.72), color=colour, linewidth=0.0)
    for bar in lane.bars:
        if bar.part == "training":
            middle = (
                axis_position(bar.started, found) + axis_position(bar.ended, found)
            ) / 2
            said = axes.text(middle, lane.row, str(bar.number), color="white")
            said.set(ha="center", va="center", clip_on=True)


def _draw_rounds(axes: Axes, bars: Sequence[TaskBar], found: Sequence[RunSpan]) -> None:
    begun = round_starts(bars)
    ticks = [
        axis_position(begun[number], found) for number in _some_numbers(sorted(begun))
    ]
    above = axes.secondary_xaxis("top")
    above.set_xticks(
        ticks, [f"round {number}" for number in _some_numbers(sorted(begun))]
    )
    above.tick_params(labelsize="x-small", length=3)


def _draw_clock(axes: Axes, found: Sequence[RunSpan]) -> None:
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


def descriptor_map(found: DescriptorMap) -> Markup:
    """Draw frames in the plane of the first two principal components."""
    names = np.array(found.groups)

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        ax.set_xlabel(f"first component, {found.explained[0]:.0%} of the variance")
        ax.set_ylabel(f"second component, {found.explained[1]:.0%}")
        ax.set_xticklabels([])
        ax.set_yticklabels([])
        marks = []
        for group, (label, shape, colour) in MAP_GROUPS.items():
            rows = np.flatnonzero(names == group)
            if len(rows):
                leads = group != "proposed"  # of those only the descriptors are known
                frames = [found.frames[row] for row in rows] if leads else ()
                x, y = found.xy[rows].T
                text = f"{label} ({len(rows)})"
                marks.append(mark(ax, Marks(ax, x, y, colour, shape, frames, text)))
        draw_legend(ax)
        return marks

    return draw_svg("map", "Map of descriptors", 4.0, paint)


def temperatures(
    moments: Sequence[WalkerMoment], bath: float | None, timestep: float
) -> Markup:
    """Draw the kinetic temperature of each walker at the end of each piece of MD.

    The thermostat's temperature and the spread that it allows are drawn too; timestep
    in fs.
    """
    picks = moments[:: 1 + len(moments) // MOST]
    times = {step: _ps(step, timestep) for step in {x.step for x in picks}}

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        if bath is not None:
            spread = bath * np.sqrt(2.0 / max(1, 3 * max(x.atoms for x in moments) - 3))
            ax.axhspan(bath - spread, bath + spread, color=COLOURS["cheap"], alpha=0.12)
            ax.axhline(bath, color=INK, linewidth=1.0, dashes=(4, 3))
        walking = [x for x in picks if not x.stopped]
        stopped = [x for x in moments if x.stopped and np.isfinite(x.temperature)]
        marks = [
            _walked(ax, walking, times, "walking", "small", COLOURS["expensive"]),
            _walked(
                ax,
                stopped,
                {x.step: _ps(x.step, timestep) for x in stopped},
                "stopped by a guard",
                "diamond",
                COLOURS["warn"],
            ),
        ]
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("time walked, ps")
        ax.set_ylabel("kinetic temperature, K")
        draw_legend(ax)
        return marks

    return draw_svg("temperature", "Kinetic temperature of the walkers", 3.0, paint)


def _ps(step: int, timestep: float) -> float:
    return 1e-3 * timestep * step


def _walked(
    axes: Axes,
    moments: Sequence[WalkerMoment],
    times: Mapping[int, float],
    name: str,
    shape: str,
    colour: str,
) -> Marks:
    return mark(
        axes,
        Marks(
            axes=axes,
            x=np.array([times[x.step] for x in moments]),
            y=np.array([x.temperature for x in moments]),
            colour=colour,
            shape=shape,
            label=f"{name} ({len(moments)})" if moments else "",
        ),
    )


def energies(
    found: Sequence[WalkerEnergy], atoms: Sequence[int], timestep: float
) -> Markup:
    """Draw the model's energies per atom of the frames that MD returned.

    They are relative to the lowest of the same molecule and generation; atoms: number
    in each molecule; timestep in fs.
    """
    lowest: dict[tuple[int, int], float] = {}
    for x in found:
        key = (x.molecule, x.generation)
        lowest[key] = min(x.energy, lowest.get(key, x.energy))

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = []
        kinds = {False: ("most surprising", "small", COLOURS["training"])}
        kinds |= {True: ("drawn at random", "diamond", COLOURS["cheap"])}
        for random, (name, shape, colour) in kinds.items():
            chosen = [x for x in found if x.random is random]
            chosen = chosen[:: 1 + len(chosen) // MOST]
            above = [x.energy - lowest[x.molecule, x.generation] for x in chosen]
            sizes = [atoms[x.molecule] for x in chosen]
            label = f"{name} ({len(chosen)})" if chosen else ""
            times = np.array([_ps(x.step, timestep) for x in chosen])
            y = 1e3 * np.array(above) / np.array(sizes)
            marks.append(mark(ax, Marks(ax, times, y, colour, shape, (), label)))
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("time walked, ps")
        ax.set_ylabel("energy above lowest, meV/atom")
        draw_legend(ax)
        return marks

    return draw_svg("energies", "Energies of the frames that MD brought", 3.0, paint)


def several_curves(curves: Sequence[CampaignCurve]) -> list[Markup]:
    """Draw the test force error of several campaigns against labels and costs."""
    what = {
        "expensive": "expensive labels learned from",
        "label_cost": "CPU seconds of all labels",
        "all_cost": "CPU seconds of everything",
    }
    return [_several(curves, key, name) for key, name in what.items()]


def _several(curves: Sequence[CampaignCurve], what: str, name: str) -> Markup:
    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        xs, ys = [], []
        for curve in curves:
            x = [float(getattr(stand, what)) for stand in curve.stands]
            y = [1e3 * stand.force_mae for stand in curve.stands]
            ax.plot(x, y, color=curve.colour, marker="o", ms=4.5, linestyle=curve.dash)
            xs += x
            ys += y
        log_axis(ax, "x", xs)
        log_axis(ax, "y", ys)
        ax.margins(0.1)
        ax.set_xlabel(name)
        ax.set_ylabel("force MAE, frozen set, meV/Å")

    about = f"Learning curves: force error on the frozen set against {name}"
    return draw_svg(f"several-{what}", about, 3.0, paint)
