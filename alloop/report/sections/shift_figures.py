"""Figures of shifts: how frames and training frames are distributed."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.frame import FrameId
from alloop.core.units import Booleans, Floats
from alloop.refine.shifts import SHIFTS, TrainingShifts
from alloop.report.sections.svg import (
    COLOURS,
    FAINT,
    INK,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    log_axis,
)

LABELS = {
    "features": "features: leverage over its mean",
    "forces": "mean force on an atom, eV/Å",
    "connectivity": "connectivity: distance of spectra",
}
_BINS = 40
_FAR = 20.0  # σ, from which an axis of deviations is logarithmic
_LEAST = 1e-3  # the smallest value drawn on a logarithmic axis
_PARTS = ("training", "expensive", "cheap", "MD", "test", "noise", "preparation")
_COLOURS = tuple(COLOURS[part] for part in _PARTS)


def shift_histograms(
    training: TrainingShifts, groups: Mapping[str, Mapping[str, Floats]]
) -> list[Markup]:
    """Draw the distribution of each shift in training and in groups of frames.

    groups: by name the values (frames,) of each shift. A shift without values is left
    out.
    """
    return [
        _draw_histogram(training, groups, shift)
        for shift in SHIFTS
        if np.isfinite(training.usual[shift].limit)
    ]


def _draw_histogram(
    training: TrainingShifts, groups: Mapping[str, Mapping[str, Floats]], shift: str
) -> Markup:
    known = _finite(training.values.of(shift))
    found = {name: _finite(values[shift]) for name, values in groups.items()}
    floor = _LEAST if shift != "forces" else 1e-2
    every = np.maximum(np.concatenate([known, *found.values()]), floor)
    wide = every.max() > 3.0 * every.min()
    pad = 1.1 if wide else 3.0  # room for ticks where all values are alike
    edges = np.geomspace(every.min() / pad, every.max() * pad, _BINS)

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        log_axis(ax, "x", edges.tolist())
        _draw_share(ax, np.maximum(known, floor), edges, FAINT, "training", True)
        for (name, values), colour in zip(found.items(), _COLOURS, strict=False):
            _draw_share(ax, np.maximum(values, floor), edges, colour, name, False)
        limit = max(training.usual[shift].limit, floor)
        ax.axvline(limit, color=INK, linewidth=1.0, dashes=(3, 2))
        ax.set_xlabel(LABELS[shift])
        ax.set_ylabel("share of frames")
        draw_legend(ax)

    about = f"Distribution of the shift by {shift} in training and in the frames"
    return draw_svg(f"shift-{shift}", about, 2.7, paint)


def _draw_share(
    axes: Axes, values: Floats, edges: Floats, colour: str, label: str, fill: bool
) -> None:
    counts, _ = np.histogram(values, edges)
    share = counts / max(1, len(values))
    axes.stairs(share, edges, fill=fill, color=colour, label=label, linewidth=1.6)


def deviation_figure(
    deviations: Mapping[str, Floats],
    out: Mapping[str, Booleans],
    frames: Sequence[FrameId],
) -> Markup:
    """Draw the deviation of each frame, in their order, a part for each shift.

    deviations and out: (frames,) by shift; frames that are out are triangles.
    """
    shown = [shift for shift in SHIFTS if np.isfinite(deviations[shift]).any()]

    def paint(axes: list[Axes]) -> list[Marks]:
        marks = []
        for ax, shift in zip(axes, shown, strict=True):
            y, beyond = deviations[shift], out[shift]
            if np.abs(_finite(y)).max() > _FAR:
                ax.set_yscale("symlog", linthresh=_FAR)
            ax.set_ylabel(f"{shift}, σ")
            ax.set_xlim(-0.5, len(y) - 0.5)
            for chosen, shape, colour in (
                (~beyond, "small", COLOURS["preparation"]),
                (beyond, "triangle", COLOURS["warn"]),
            ):
                at = np.flatnonzero(chosen & np.isfinite(y))
                own = [frames[i] for i in at.tolist()]
                x = at.astype(np.float64)
                marks.append(add_points(ax, Marks(ax, x, y[at], colour, shape, own)))
        axes[-1].set_xlabel("frame")
        return marks

    about = "Deviation of each frame from the training frames, by shift"
    rows = len(shown)
    return draw_svg("deviations", about, 0.5 + 1.4 * rows, paint, rows=rows)


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]
