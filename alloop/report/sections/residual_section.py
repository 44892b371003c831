"""The section of the report on the bias of generations, and on surprise along MD."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.analysis.explorations import Explorations, WalkerEnergy
from alloop.report.analysis.residual_bias import GenerationBias, generation_biases
from alloop.report.sections.markup import (
    Section,
    figure_block,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.sections.run_figures import add_walker_frames
from alloop.report.sections.run_sections import md_timestep
from alloop.report.sections.svg import (
    COLOURS,
    INK,
    Marks,
    draw_svg,
    log_axis,
)
from alloop.report.text.formatting import number_text

_NAME = "Bias by generation"
_MILLI = 1e3


def residual_section(history: History, explored: Explorations) -> Section:
    """Return the section on residual bias and on surprise along the trajectories."""
    found = generation_biases(history)
    if not found:
        why = "No generation was tested on a validation set, so that no bias is known."
        return Section("residuals", _NAME, missing_note(why))
    drawn = [bias_figure(found)]
    walked = [x for x in explored.energies if np.isfinite(x.surprise)]
    if walked:
        drawn.append(surprise_run_figure(walked, md_timestep(history)))
    caption = (
        "First: energies of the model less labels on the validation set, mean and "
        "standard deviation over frames, and the factor of its forces, 1 without a "
        "bias. Fine-tuning along one trajectory should bring both to zero bias; "
        "surprise does not see it. Second: surprise of the frames that MD brought, in "
        "the time that their walkers have moved; those drawn at random are a fair "
        "sample."
    )
    protocol = str(config_value(history, "explore", "protocol") or "periodic")
    intro = paragraph(f"Protocol of fine-tuning: {protocol}.")
    body = intro + _bias_table(found) + figure_block(drawn, caption)
    return Section("residuals", _NAME, body)


def _bias_table(found: Sequence[GenerationBias]) -> Markup:
    rows = [
        (
            str(x.generation),
            str(x.frames),
            number_text(_MILLI * x.energy),
            number_text(_MILLI * x.energy_spread),
            f"{x.force_scale:.3f}",
        )
        for x in found
    ]
    head = (
        *("generation", "frames", "energy residual, meV/atom"),
        *("its standard deviation", "factor of forces"),
    )
    return table_html(head, rows)


def bias_figure(found: Sequence[GenerationBias]) -> Markup:
    """Draw the energy residual and the factor of forces by generation."""
    numbers = [x.generation for x in found]

    def paint(axes: list[Axes]) -> None:
        above, below = axes
        energies = [_MILLI * x.energy for x in found]
        spread = [_MILLI * x.energy_spread for x in found]
        colour = COLOURS["test"]
        above.errorbar(numbers, energies, spread, fmt="o-", color=colour, capsize=2)
        above.axhline(0.0, color=INK, linewidth=0.8, dashes=(2, 2))
        above.set_ylabel("energy, meV/atom")
        below.plot(numbers, [x.force_scale for x in found], "o-", color=colour)
        below.axhline(1.0, color=INK, linewidth=0.8, dashes=(2, 2))
        below.set_ylabel("factor of forces")
        below.set_xlabel("generation")
        for each in axes:
            each.xaxis.set_major_locator(MaxNLocator(integer=True))

    about = "Energy residual and factor of forces by generation"
    return draw_svg("residuals", about, 3.9, paint, rows=2)


def surprise_run_figure(found: Sequence[WalkerEnergy], timestep: float) -> Markup:
    """Draw the surprise of frames against the time that their walkers moved, in ps.

    timestep in fs.
    """

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = add_walker_frames(ax, found, timestep, lambda x: x.surprise)
        log_axis(ax, "y", [x.surprise for x in found])
        ax.set_ylabel("surprise (uncertainty)")
        return marks

    return draw_svg("surprise-runs", "Surprise along the trajectories", 3.9, paint)
