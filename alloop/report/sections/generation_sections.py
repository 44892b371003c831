"""Sections of the report on single generations: their checks and their bias.

Bias is the mean deviation from the labels of the validation set, and of the model from
cheap labels. An error that is the same everywhere is seen neither by surprise nor by
the spread of energies (Wong and Yang, arXiv 2603.10159).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alloop.core.units import Floats
from alloop.history.acceptance import unaccepted_sentence
from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    config_value,
    first_errors,
    has_forces,
    is_single,
    set_errors,
)
from alloop.report.analysis.explorations import (
    Explorations,
    WalkerEnergy,
    labels_by_frame,
)
from alloop.report.sections.markup import (
    Section,
    figure_block,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.sections.run_sections import add_walker_frames, md_timestep
from alloop.report.sections.svg import (
    COLOURS,
    INK,
    Marks,
    draw_svg,
    log_axis,
    spread_numbers,
)
from alloop.report.text.event_log import check_text
from alloop.report.text.formatting import milli_text, number_text

_STARTS = ("name", "frames", "force_mae", "energy_mae")
_CHANGES = ("name", "frames", "force_mae", "force_before", "force_size")


@dataclass(frozen=True, slots=True)
class GenerationBias:
    """The mean deviations of a generation from the labels of the validation set.

    energy, energy_spread: mean and standard deviation over frames of model less label,
    eV an atom. force_scale: least-squares factor of the labels' force components in the
    model's, 1 without a bias; below it the potential is too soft.
    """

    generation: int
    frames: int
    energy: float
    energy_spread: float
    force_scale: float


def generation_biases(history: History) -> tuple[GenerationBias, ...]:
    """Return the bias of each generation that was tested, in order."""
    biases = []
    for _, trained in history.generations:
        labels, test = labels_of_test(history, trained), trained.evaluation
        if labels is None or test is None:
            continue
        deviations = (test.energies - labels.energies) / labels.batch.sizes
        square = float(np.sum(labels.forces**2))
        scale = float(np.sum(test.forces * labels.forces)) / square if square else 1.0
        biases.append(
            GenerationBias(
                trained.generation,
                len(deviations),
                float(deviations.mean()),
                float(deviations.std()),
                scale,
            )
        )
    return tuple(biases)


_MILLI = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class BiasData:
    """Mean absolute force differences by frame, eV/Å.

    generation: ASTEROID's B of each cheap label for the model of that generation;
    trained: B is that of its own training, else it was taken when the label came.
    levels: cheap against expensive labels of the same frames.
    """

    generation: Mapping[int, Floats] = field(default_factory=dict)
    trained: bool = False
    levels: Floats = field(default_factory=lambda: np.zeros(0))


def residual_section(history: History, explored: Explorations) -> Section:
    """Return the section on residual bias and on surprise along the trajectories."""
    name = "Bias by generation"
    biases = generation_biases(history)
    if not biases:
        why = "No generation was tested on a validation set, so that no bias is known."
        return Section("residuals", name, missing_note(why))
    drawn = [residual_figure(biases)]
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
    body = intro + _bias_table(biases) + figure_block(drawn, caption)
    return Section("residuals", name, body)


def _bias_table(biases: Sequence[GenerationBias]) -> Markup:
    rows = [
        (
            str(x.generation),
            str(x.frames),
            number_text(_MILLI * x.energy),
            number_text(_MILLI * x.energy_spread),
            "–" if isnan(x.force_scale) else f"{x.force_scale:.3f}",
        )
        for x in biases
    ]
    head = (
        *("generation", "frames", "energy residual, meV/atom"),
        *("its standard deviation", "factor of forces"),
    )
    return table_html(head, rows)


def residual_figure(biases: Sequence[GenerationBias]) -> Markup:
    """Draw the energy residual and the factor of forces by generation."""
    numbers = [x.generation for x in biases]

    def paint(axes: list[Axes]) -> None:
        above, below = axes
        energies = [_MILLI * x.energy for x in biases]
        spread = [_MILLI * x.energy_spread for x in biases]
        colour = COLOURS["test"]
        above.errorbar(numbers, energies, spread, fmt="o-", color=colour, capsize=2)
        above.axhline(0.0, color=INK, linewidth=0.8, dashes=(2, 2))
        above.set_ylabel("energy, meV/atom")
        below.plot(numbers, [x.force_scale for x in biases], "o-", color=colour)
        below.axhline(1.0, color=INK, linewidth=0.8, dashes=(2, 2))
        below.set_ylabel("factor of forces")
        below.set_xlabel("generation")
        for ax in axes:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))

    about = "Energy residual and factor of forces by generation"
    return draw_svg("residuals", about, 3.9, paint, rows=2)


def surprise_run_figure(energies: Sequence[WalkerEnergy], timestep: float) -> Markup:
    """Draw the surprise of frames against the time that their walkers moved, in ps.

    timestep in fs.
    """

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = add_walker_frames(ax, energies, timestep, lambda x: x.surprise)
        log_axis(ax, "y", [x.surprise for x in energies])
        ax.set_ylabel("surprise (uncertainty)")
        return marks

    return draw_svg("surprise-runs", "Surprise along the trajectories", 3.9, paint)


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


def bias_section(history: History, explored: Explorations) -> Section:
    """Return the section on the bias of cheap labels."""
    name = "Bias of the cheap labels"
    biases = bias_data(history, explored)
    if is_single(history):
        why = (
            "This campaign has one fidelity only: there is no cheap label to be biased."
        )
        return Section("bias", name, missing_note(why))
    if not biases.generation and not len(biases.levels):
        why = "No bias is known yet: no model has been compared with a cheap label."
        return Section("bias", name, missing_note(why))
    source = (
        "as its training found it after the first stage, and weighed cheap labels by it"
        if biases.trained
        else "of the frames it proposed, taken when their cheap labels came"
    )
    caption = (
        "B is the mean absolute difference between the model's forces and the cheap "
        f"label of a frame, {source}; the line is the median. The last row needs no "
        "model: it compares cheap and expensive labels of the same frames. B well "
        "above that row is the model's own error, B near it is the cheap level's."
    )
    return Section("bias", name, figure_block(bias_figure(biases), caption))


def bias_data(history: History, explored: Explorations) -> BiasData:
    """Return the biases of cheap labels found by training, else those at labelling."""
    trained = {
        x.generation: np.asarray(x.history["bias"], dtype=np.float64)
        for _, x in history.of_kind(e.Trained)
        if isinstance(x.history.get("bias"), list) and x.history["bias"]
    }
    return BiasData(
        generation=trained or _biases_when_labelled(explored),
        trained=bool(trained),
        levels=_level_differences(history),
    )


def _biases_when_labelled(explored: Explorations) -> dict[int, Floats]:
    biases: dict[int, list[float]] = {}
    for origin in explored.origins.values():
        if "cheap" in origin.differences:
            mean, _ = origin.differences["cheap"]
            biases.setdefault(origin.generation, []).append(mean)
    return {number: np.array(values) for number, values in sorted(biases.items())}


def _level_differences(history: History) -> Floats:
    levels = history.opened.levels
    one_level = levels.get("cheap") in (None, levels.get("expensive"))
    if one_level or not has_forces(history):
        return np.zeros(0)
    others = labels_by_frame(history, "expensive")
    return np.array(
        [
            float(np.abs(label.forces - others[frame].forces).mean())
            for frame, label in labels_by_frame(history, "cheap").items()
            if frame in others
        ]
    )


def acceptance_section(history: History) -> Section:
    """Return the section on what generations passed and failed, and on sets' errors."""
    name = "Checks of generations"
    events = [event for _, event in history.generations]
    if not any(event.checks for event in events):
        why = (
            "No generation was checked; `acceptance: {}` in the campaign file does so."
        )
        return Section("acceptance", name, missing_note(why))
    rows = [
        (
            str(event.generation),
            _use_text(history, event.generation),
            str(len(event.checks) - len(event.failed_checks)),
            "; ".join(check_text(check) for check in event.failed_checks) or "–",
        )
        for event in events
    ]
    head = ("generation", "used", "passed", "failed")
    unaccepted = unaccepted_sentence(history.state)
    note = Markup("") if unaccepted is None else paragraph(unaccepted)
    return Section(
        "acceptance", name, note + table_html(head, rows) + _set_table(history)
    )


def tuning_section(history: History) -> Section | None:
    """Return the section on errors before and after fine-tuning, None without any.

    They are those of universal potentials, which the history of a training holds.
    """
    events = [x for x in history.trained() if x.history.get("before/name")]
    if not events:
        return None
    text = (
        "Force MAE (meV/Å) and energy MAE (meV a frame) on held-out frames before the "
        "first step of each training: of the universal potential as it comes, with "
        "reference energies fitted to the labels, and of what training started from."
    )
    rows = [row for event in events for row in _starting_rows(event)]
    head = ("generation", "potential", "frames", "forces", "energies")
    body = paragraph(text) + table_html(head, rows)
    after = [row for event in events for row in _changed_rows(event)]
    if after:
        text = (
            "Force MAE (meV/Å) elsewhere, after training and before it, beside the "
            "size of the forces: on replayed frames, and on frames whose distances are "
            "all 0.8 times as long."
        )
        columns = ("generation", "frames", "number", "after", "before", "forces")
        body += paragraph(text) + table_html(columns, after)
    return Section("fine-tuning", "Before and after fine-tuning", body)


def _starting_rows(event: e.Trained) -> list[tuple[str, ...]]:
    """Return the rows of a generation: potential, frames, and errors as text."""
    said: Mapping[str, Any] = event.history
    columns = [said[f"before/{key}"] for key in _STARTS]
    return [
        (str(event.generation), name, str(frames), *map(milli_text, errors))
        for name, frames, *errors in zip(*columns, strict=True)
    ]


def _changed_rows(event: e.Trained) -> list[tuple[str, ...]]:
    """Return the rows of a generation: frames elsewhere, and errors as text."""
    said: Mapping[str, Any] = event.history
    if not said.get("after/name"):
        return []
    columns = [said[f"after/{key}"] for key in _CHANGES]
    return [
        (str(event.generation), name, str(frames), *map(milli_text, errors))
        for name, frames, *errors in zip(*columns, strict=True)
    ]


def _use_text(history: History, number: int) -> str:
    if number in history.state.generations.unaccepted:
        return "for exploration"
    return "yes" if number in history.state.generations.accepted else "no"


def _set_table(history: History) -> Markup:
    errors, first = set_errors(history), first_errors(history)
    if not errors:
        return Markup("")
    rows = [("before", *(milli_text(first[name]) for name in errors))]
    rows += [
        (
            str(event.generation),
            *(milli_text(values[index]) for values in errors.values()),
        )
        for index, (_, event) in enumerate(history.generations)
    ]
    limits = [
        f"{check.set_name} {check.limit:.3g}"
        for check in history.generations[-1][1].checks
        if check.set_name and isfinite(check.limit)
    ]
    text = (
        "Force MAE, meV/Å, on sets of frames that the user supplied and no training "
        "saw; before: the model that fine-tuning began with."
    )
    if limits:
        text += f" Limits of the newest generation: {', '.join(limits)}."
    return paragraph(text) + table_html(("generation", *errors), rows)
