"""Figures as inline SVG that take font, ink and light or dark mode from the page.

Matplotlib draws everything but points: no pyplot and no global state are used, and the
same figure gives the same bytes. Points are <use> elements from a template, since each
links to its frame: 2000 of them take 130 kB with links, matplotlib's 220 kB without.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from alloop.core.frame import FrameId
from alloop.core.units import Floats
from alloop.report.sections.markup import PointGroup, PointPlace, svg_element

INK, FAINT = "#010203", "#040506"  # placeholders for the page's own colours

PANEL, WIDE = 4.3, 7.4  # inches

_SHAPES = {"dot": "o", "small": "o", "triangle": "^", "diamond": "D", "square": "s"}

COLOURS = {
    "expensive": "#2f6fd0",
    "cheap": "#1a9e8f",
    "test": "#8a7fe0",
    "examination": "#5a4fb0",
    "training": "#e07b39",
    "MD": "#c2487f",
    "noise": "#8a9a2e",
    "preparation": "#9a9489",
    "warn": "#d1495b",
}


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Points of one kind.

    x and y (points,) in data units; frames: ids of their frames, or none; shape: `dot`,
    `small`, `triangle`, `diamond` or `square`.
    """

    axes: Axes
    x: Floats
    y: Floats
    colour: str
    shape: str = "dot"
    frames: Sequence[FrameId] = ()
    label: str = ""


PaintFunction: TypeAlias = Callable[[list[Axes]], Iterable[Marks] | None]

# Matplotlib settings for the report's colours and fonts.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alloop",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.0,
}

# Ticks of a logarithmic axis: largest ratio of its ends, first digits of the ticks.
_SUBS = ((8.0, (1.0, 2.0, 3.0, 5.0, 7.0)), (1000.0, (1.0, 2.0, 5.0)))

_FONT = r"font: (?:(\w+) )?([\d.]+)px [^;\"]*"

_VARIABLES = {INK: "currentColor", FAINT: "var(--line)"}

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def draw_svg(
    name: str,
    about: str,
    height: float,
    paint: PaintFunction,
    width: float = PANEL,
    rows: int = 1,
) -> Markup:
    """Return a figure as an <svg> element.

    Parameters
    ----------
    name
        Prefix of the ids inside, different for each figure of a page.
    about
        Description of the figure for people who cannot see it.
    height, width
        In inches. A PANEL is as wide as a phone, and two of them as a page.
    paint
        Function that draws on the axes and returns the points that link to frames.
    rows
        Number of axes, one below the other.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.subplots(rows, 1, squeeze=False).ravel().tolist()
        for item in axes:
            item.patch.set_alpha(0.0)
        marks = list(paint(axes) or ())
        _lay_out(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
        points = [_point_group(figure, item) for item in marks if len(item.x)]
    box, body = _inline_parts(out.getvalue(), name)
    return svg_element(about, box, Markup(body), points)


def _lay_out(figure: Figure) -> None:
    """Lay out the figure once, since `savefig` would draw it twice to do so."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def add_points(points: Marks) -> Marks:
    """Reserve room for points on their axes, and add their label to the legend."""
    points.axes.plot(points.x, points.y, linestyle="none", marker="none")
    if points.label:
        points.axes.scatter(
            [],
            [],
            s=24,
            marker=_SHAPES[points.shape],
            color=points.colour,
            linewidths=0.0,
            label=points.label,
        )
    return points


def _point_group(figure: Figure, points: Marks) -> PointGroup:
    """Return points with their places in the drawing, in points of 1/72 inch."""
    places = points.axes.transData.transform(np.column_stack([points.x, points.y]))
    share = figure.transFigure.inverted().transform(places)
    width, height = 72.0 * figure.get_size_inches()
    frames = points.frames or [""] * len(share)
    names = (points.axes.get_xlabel(), points.axes.get_ylabel())
    return PointGroup(
        points.shape,
        points.colour,
        [
            PointPlace(
                f"{width * at[0]:.1f}",
                f"{height * (1.0 - at[1]):.1f}",
                f"{x:.3g}|{y:.3g}",
                frame[:12],
            )
            for at, x, y, frame in zip(share, points.x, points.y, frames, strict=True)
        ],
        "|".join(names),
    )


def _inline_parts(text: str, name: str) -> tuple[str, str]:
    """Return the view box and the content of matplotlib's <svg>.

    Ids begin with `name`; fonts, sizes and ink are left to the page.
    """
    root, _, body = text[text.index("<svg") :].partition(">")
    body = body.rstrip().removesuffix("</svg>")
    body = re.sub(r'\b(id|href)="(#?)', rf'\1="\2{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = re.sub(r"\s*<g id=\"[^\"]*\"/>", "", body)
    body = re.sub(r"<g id=\"[^\"]*\">", "<g>", body)
    body = re.sub(_FONT, r"font-weight: \1; font-size: \2px", body)
    body = re.sub(r"font-weight: ;|font-family: [^;\"]*;?", "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    box = re.search(r'viewBox="([^"]*)"', root)
    return box[1] if box else "", body


def log_axis(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with plain numbers, if values span a factor 3 or more.

    Nothing is changed if a value is not positive.
    """
    positive = [value for value in values if value > 0]
    if not positive or min(values) <= 0 or max(values) < 3 * min(values):
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    span = max(positive) / min(positive)
    subs = next((subs for limit, subs in _SUBS if span < limit), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain_number))


def _plain_number(value: float, _position: int | None = None) -> str:
    return f"{value:g}"


def draw_legend(axes: Axes, **options: Any) -> None:
    """Draw a legend above the figure if it has more than one entry."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if len(labels) > 1 and figure is not None:
        place = {"loc": "outside upper left", "ncols": 2, "borderaxespad": 0.2}
        figure.legend(handles, labels, **{**place, **options})


MOST_POINTS = 2000  # points drawn in one figure, at most


def thinning_step(points: Sized) -> int:
    """Return the step between points of which at most `MOST_POINTS` are drawn."""
    return 1 + len(points) // MOST_POINTS


_ROWS = 6  # generations in the bias figure, at most


def spread_numbers(numbers: Sequence[int]) -> list[int]:
    """Return at most six of the numbers, the first and the last among them."""
    picks = np.linspace(0, len(numbers) - 1, min(_ROWS, len(numbers)))
    return [numbers[round(pick)] for pick in picks]
