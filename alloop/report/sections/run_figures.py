"""Figures of a run: cost, timeline, walkers and the map of descriptors."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.report.analysis.descriptor_map import DescriptorMap
from alloop.report.analysis.explorations import WalkerEnergy, WalkerMoment
from alloop.report.analysis.timeline import (
    RunSpan,
    TaskBar,
    WorkerLane,
    axis_position,
    round_starts,
    run_spans,
    worker_lanes,
)
from alloop.report.sections.markup import wide_or_narrow
from alloop.report.sections.svg import (
    COLOURS,
    INK,
    MOST_POINTS,
    PANEL,
    WIDE,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    spread_numbers,
)
from alloop.report.text.formatting import duration_text

MAP_GROUPS = {
    "proposed": ("proposed, no label", "small", "#8a8f98"),
    "labelled": ("first labels", "small", COLOURS["expensive"]),
    "flagged": ("flagged", "triangle", COLOURS["training"]),
    "control": ("random control", "diamond", COLOURS["cheap"]),
    "test": ("validation set", "dot", COLOURS["test"]),
    "examination": ("examination", "square", COLOURS["examination"]),
}

_PARTS = {
    "cheap labels": "cheap",
    "expensive labels": "expensive",
    "validation set": "test",
    "examination": "examination",
    "training": "training",
    "MD": "MD",
    "noise floor": "noise",
    "preparation": "preparation",
}


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
        ax.set_xlabel("CPU time, s")
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)

    about = "CPU seconds by part of the campaign"
    return draw_svg("spending", about, 0.6 + 0.3 * len(shown), paint)


def timeline_figures(bars: Sequence[TaskBar]) -> list[Markup]:
    """Draw the tasks of each worker over time, without pauses between runs.

    There are two drawings, a wide one for pages and a narrow one for phones.
    """
    return wide_or_narrow(_draw_timeline(bars, WIDE, 7), _draw_timeline(bars, PANEL, 3))


def _draw_timeline(bars: Sequence[TaskBar], width: float, columns: int) -> Markup:
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
            number = axes.text(middle, lane.row, str(bar.number), color="white")
            number.set(ha="center", va="center", clip_on=True)


def _draw_rounds(axes: Axes, bars: Sequence[TaskBar], found: Sequence[RunSpan]) -> None:
    begun = round_starts(bars)
    ticks = [
        axis_position(begun[number], found) for number in spread_numbers(sorted(begun))
    ]
    above = axes.secondary_xaxis("top")
    above.set_xticks(
        ticks, [f"round {number}" for number in spread_numbers(sorted(begun))]
    )
    above.tick_params(labelsize="x-small", length=3)


def _draw_clock(axes: Axes, found: Sequence[RunSpan]) -> None:
    for run in found[1:]:
        axes.axvline(run.at, color=INK, linewidth=1.0, dashes=(1, 2))
        axes.annotate(
            f" paused {run.paused}",
            (run.at, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(1, 3),
            textcoords="offset points",
        )
    axes.set_xlabel("wall time of the runs, s")


def map_figure(found: DescriptorMap) -> Markup:
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
                marks.append(
                    add_points(ax, Marks(ax, x, y, colour, shape, frames, text))
                )
        draw_legend(ax)
        return marks

    return draw_svg("map", "Map of descriptors", 4.0, paint)


def temperature_figure(
    moments: Sequence[WalkerMoment], baths: Sequence[float], timestep: float
) -> Markup:
    """Draw the kinetic temperature of each walker at the end of each piece of MD.

    baths: temperatures of the thermostats in K, drawn with the spread that they allow;
    timestep in fs.
    """
    picks = moments[:: 1 + len(moments) // MOST_POINTS]
    times = {step: _picoseconds(step, timestep) for step in {x.step for x in picks}}

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        for bath in baths:
            spread = bath * np.sqrt(2.0 / max(1, 3 * max(x.atoms for x in moments) - 3))
            ax.axhspan(bath - spread, bath + spread, color=COLOURS["cheap"], alpha=0.12)
            ax.axhline(bath, color=INK, linewidth=1.0, dashes=(4, 3))
        walking = [x for x in picks if not x.stopped]
        stopped = [x for x in moments if x.stopped and np.isfinite(x.temperature)]
        marks = [
            _walker_marks(ax, walking, times, "walking", "small", COLOURS["expensive"]),
            _walker_marks(
                ax,
                stopped,
                {x.step: _picoseconds(x.step, timestep) for x in stopped},
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


def _picoseconds(step: int, timestep: float) -> float:
    return 1e-3 * timestep * step


def _walker_marks(
    axes: Axes,
    moments: Sequence[WalkerMoment],
    times: Mapping[int, float],
    name: str,
    shape: str,
    colour: str,
) -> Marks:
    return add_points(
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


def energy_figure(
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
        marks = add_walker_frames(ax, found, timestep, height)
        ax.set_ylim(bottom=0.0)
        ax.set_ylabel("energy above lowest, meV/atom")
        return marks

    def height(x: WalkerEnergy) -> float:
        above = x.energy - lowest[x.molecule, x.generation]
        return 1e3 * above / atoms[x.molecule]

    return draw_svg("energies", "Energies of the frames that MD brought", 3.0, paint)


def add_walker_frames(
    ax: Axes,
    found: Sequence[WalkerEnergy],
    timestep: float,
    height: Callable[[WalkerEnergy], float],
) -> list[Marks]:
    """Draw frames that MD returned against the time that their walkers moved, in ps.

    Those drawn at random have another mark. timestep in fs; height: of a frame.
    """
    marks = []
    kinds = {False: ("most surprising", "small", COLOURS["training"])}
    kinds |= {True: ("drawn at random", "diamond", COLOURS["cheap"])}
    for random, (name, shape, colour) in kinds.items():
        chosen = [x for x in found if x.random is random]
        chosen = chosen[:: 1 + len(chosen) // MOST_POINTS]
        label = f"{name} ({len(chosen)})" if chosen else ""
        times = np.array([_picoseconds(x.step, timestep) for x in chosen])
        y = np.array([height(x) for x in chosen])
        marks.append(add_points(ax, Marks(ax, times, y, colour, shape, (), label)))
    ax.set_xlabel("time walked, ps")
    draw_legend(ax)
    return marks
