"""Figures as inline SVG that follows the page: its font, its ink, light or dark.

No pyplot, no global state, and the same figure gives the same bytes.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Draw: TypeAlias = Callable[[list[Axes]], None]

INK, FAINT = "#010203", "#040506"  # stand for the page's own colours
WIDTH = 7.4  # inch
COLOURS = {
    "expensive": "#2f6fd0",
    "cheap": "#1a9e8f",
    "test": "#8a7fe0",
    "training": "#e07b39",
    "MD": "#c2487f",
    "noise": "#8a9a2e",
    "preparation": "#9a9489",
    "warn": "#d1495b",
}
# Matplotlib's own words for what stands in the report's colour table.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alloop",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
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
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.0,
}
_SUBS = ((8.0, (1.0, 2.0, 3.0, 5.0, 7.0)), (1000.0, (1.0, 2.0, 5.0)))
_FONT = r"font: (?:(\w+) )?([\d.]+)px [^;\"]*"
_VARIABLES = {INK: "currentColor", FAINT: "var(--line)"}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def draw(name: str, about: str, shape: tuple[int, int, float], paint: Draw) -> str:
    """A figure as an <svg> element.

    Parameters
    ----------
    name
        Prefix of the ids inside, different for each figure of a page.
    about
        What it shows, for those who do not see it.
    shape
        Rows and columns of axes, and the height in inches.
    paint
        Draws on the axes, row after row.
    """
    rows, columns, height = shape
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for each in axes:
            each.patch.set_alpha(0.0)
        paint(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    return _inline(out.getvalue(), name, about)


def _inline(text: str, name: str, about: str) -> str:
    svg = text[text.index("<svg") :].rstrip()
    svg = re.sub(r'\b(id|href)="(#?)', rf'\1="\2{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r"\s*<g id=\"[^\"]*\"/>", "", svg)
    svg = re.sub(r"<g id=\"[^\"]*\">", "<g>", svg)
    svg = re.sub(_FONT, r"font-weight: \1; font-size: \2px", svg)
    svg = re.sub(r"font-weight: ;|font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = about.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def log_axis(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, if the values span more than a factor."""
    positive = [value for value in values if value > 0]
    if not positive or min(values) <= 0 or max(values) < 3 * min(values):
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    span = max(positive) / min(positive)
    subs = next((subs for most, subs in _SUBS if span < most), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:g}"


def legend(axes: Axes, **options: Any) -> None:
    """A legend above the figure, if there is anything to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if len(labels) > 1 and figure is not None:
        place = {"loc": "outside upper left", "ncols": 4, "borderaxespad": 0.2}
        figure.legend(handles, labels, **{**place, **options})
