"""Comparison of several campaigns on one page: learning curves, costs and settings."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import Any

import yaml
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.errors import InputError
from alloop.history.measured_costs import PARTS
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    generation_facts,
    level_title,
)
from alloop.report.analysis.examination import last_examination
from alloop.report.analysis.outcome import TITLES
from alloop.report.sections.error_sections import QUANTITIES
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    colour_swatch,
    figure_block,
    missing_note,
    paragraph,
    render_page,
    table_html,
)
from alloop.report.sections.svg import (
    draw_svg,
    log_axis,
)
from alloop.report.text.formatting import and_list, duration_text, milli_text, plural

_COLOURS = ("#2f6fd0", "#e07b39", "#1a9e8f", "#8a7fe0", "#d1495b", "#8a9a2e", "#c2487f")


_OWN = ("name", "store", "cache")  # sections that differ between any two campaigns


_DASHES = {"": "-", "standard": "--", "random": ":"}


@dataclass(frozen=True, slots=True, eq=False)
class ComparedCampaign:
    """A campaign with its controls by name."""

    history: History
    controls: Mapping[str, History]


@dataclass(frozen=True, slots=True)
class CostedGeneration:
    """A tested generation and the costs up to it.

    expensive: labels that it learned from. label_cost, all_cost: CPU seconds of labels
    and of everything so far, validation labels not included. force_mae: on the
    validation set, eV/Å.
    """

    generation: int
    expensive: int
    label_cost: float
    all_cost: float
    force_mae: float


@dataclass(frozen=True, slots=True)
class CampaignCurve:
    """The generations of a campaign, or of the control named `control` if not empty."""

    name: str
    control: str
    colour: str
    generations: tuple[CostedGeneration, ...]

    @property
    def dash(self) -> str:
        """The line style of the curve."""
        return _DASHES.get(self.control, "-.")


def comparison_page(compared: Sequence[ComparedCampaign]) -> str:
    """Return the page as text; raise InputError for fewer than two campaigns."""
    if len(compared) < 2:
        raise InputError(
            f"expected two stores or more to compare, got {len(compared)}; `alloop "
            "report STORE` reports on one"
        )
    names = campaign_names([campaign.history for campaign in compared])
    curves = [
        curve
        for number, (name, campaign) in enumerate(zip(names, compared, strict=True))
        for curve in _campaign_curves(name, campaign, _COLOURS[number % len(_COLOURS)])
    ]
    histories = [campaign.history for campaign in compared]
    return render_page(
        title=" · ".join(names),
        kind="campaigns compared",
        where=and_list(history.place for history in histories),
        lead=bullet_list(_caveats(histories), "weak"),
        sections=(
            Section("learning", "Learning curves", _learning_figure(curves)),
            Section("errors", "Final errors and costs", _end_table(curves, compared)),
            Section(
                "settings", "Settings that differ", _settings_table(names, histories)
            ),
        ),
        foot="Written from the stores alone; `alloop report --compare` writes it anew.",
    )


def campaign_names(histories: Sequence[History]) -> list[str]:
    """Return the campaigns' names, with their stores where names are the same."""
    names = [str(history.attrs["name"]) for history in histories]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} ({history.place})"
        for name, history in zip(names, histories, strict=True)
    ]


def differing_settings(histories: Sequence[History]) -> dict[str, list[str]]:
    """Return the settings in force that are not the same in all campaigns.

    Keys are their dotted names; a value is `–` where a campaign has none.
    """
    trees = [
        dict(_flat_settings(yaml.safe_load(history.config))) for history in histories
    ]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    rows = {key: [tree.get(key, "–") for tree in trees] for key in keys}
    return {
        key: row
        for key, row in rows.items()
        if len(set(row)) > 1 and key.split(".")[0] not in _OWN
    }


def _flat_settings(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat_settings(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, "–" if tree in (None, "", {}) else str(tree)


def _campaign_curves(
    name: str, campaign: ComparedCampaign, colour: str
) -> Iterator[CampaignCurve]:
    yield CampaignCurve(name, "", colour, costed_generations(campaign.history))
    for control, history in campaign.controls.items():
        yield CampaignCurve(name, control, colour, costed_generations(history))


def _caveats(histories: Sequence[History]) -> Iterator[str]:
    """Yield the reasons why the errors may not be comparable."""
    levels = {history.opened.levels["expensive"] for history in histories}
    if len(levels) > 1:
        named = and_list(
            dict.fromkeys(level_title(history, "expensive") for history in histories)
        )
        yield (
            f"The expensive levels differ ({named}): each campaign's error is against "
            "its own."
        )
    tests = {
        frozenset(history.state.labels.validation_frames()) for history in histories
    }
    if len(tests) > 1:
        sizes = and_list(
            str(len(history.state.labels.validation_frames())) for history in histories
        )
        yield (
            f"The campaigns were tested on different frames (n = {sizes}): small "
            "differences between them say nothing."
        )
    yield (
        "One run each: how much an outcome varies from seed to seed is not known from "
        "this page."
    )


def _learning_figure(curves: Sequence[CampaignCurve]) -> Markup:
    if not any(curve.generations for curve in curves):
        return missing_note("No generation was tested in any of them yet.")
    controls = {curve.control for curve in curves if curve.control}
    styles = {"standard": "dashed", "random": "dotted"}
    caveats = and_list(
        f"{styles.get(name, 'dash-dotted')}: {TITLES.get(name, name)}"
        for name in sorted(controls)
    )
    caption = (
        "A point is a generation, on its campaign's validation set; lower is better. "
        "CPU seconds of labels count whoever made them, validation labels aside; all "
        "CPU seconds are these with training, MD, preparation and labels made again."
    )
    tail = (
        f" Controls have the colour of their campaign, {caveats}." if controls else ""
    )
    legend = bullet_list((_curve_label(x) for x in curves if not x.control), "legend")
    return legend + figure_block(several_figures(curves), caption + tail)


def _curve_label(curve: CampaignCurve) -> Markup:
    control = TITLES.get(curve.control, curve.control)
    name = f"{curve.name}: {control}" if control else curve.name
    return colour_swatch(curve.colour, name)


def _end_table(
    curves: Sequence[CampaignCurve], compared: Sequence[ComparedCampaign]
) -> Markup:
    histories = [
        history
        for campaign in compared
        for history in (campaign.history, *campaign.controls.values())
    ]
    rows = [_end_row(*both) for both in zip(curves, histories, strict=True)]
    head = (
        *("campaign", "generations", "examination, forces MAE, meV/Å"),
        *("validation frames", "forces MAE, meV/Å", "RMSE", "energies MAE, meV"),
        *("expensive labels", "cheap labels", "labels, CPU", "everything, CPU"),
    )
    note = (
        "Errors on the validation set, labels and CPU seconds are those of the last "
        "generation. The examination measures the generation that is best on "
        "the validation set, on frames of its own MD or, for a control, on the same "
        "frames as its campaign; in brackets stand generation and number of frames."
    )
    return table_html(head, rows) + paragraph(note)


def _end_row(curve: CampaignCurve, history: History) -> Sequence[Text]:
    generations: Sequence[GenerationFacts] = generation_facts(history)
    if not generations:
        return (_curve_label(curve), "0", *["–"] * 9)
    last, costed = generations[-1], curve.generations[-1:]
    return (
        _curve_label(curve),
        str(len(generations)),
        _examination_text(history),
        str(last.test),
        *(milli_text(x) for x in (last.force_mae, last.force_rmse, last.energy_mae)),
        *map(str, (last.expensive, last.cheap)),
        duration_text(last.label_cost),
        *(duration_text(x.all_cost) for x in costed),
        *["–"] * (not costed),
    )


def _examination_text(history: History) -> str:
    examination = last_examination(history)
    if examination is None or examination.errors is None:
        return "–"
    frames = plural(examination.frames, "frame")
    error = milli_text(examination.errors.force_mae)
    return f"{error} (generation {examination.generation}, {frames})"


def _settings_table(names: Sequence[str], histories: Sequence[History]) -> Markup:
    settings = differing_settings(histories)
    if not settings:
        return missing_note("All settings are the same, but for names and places.")
    rows = [(key, *row) for key, row in settings.items()]
    note = f"{plural(len(settings), 'setting')} in force; all others are the same."
    return paragraph(note) + table_html(("setting", *names), rows, words=1 + len(names))


def several_figures(curves: Sequence[CampaignCurve]) -> list[Markup]:
    """Draw the test force error of several campaigns against labels and costs."""
    return [_draw_several(curves, key, name) for key, name in QUANTITIES.items()]


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


def costed_generations(history: History) -> tuple[CostedGeneration, ...]:
    """Return the tested generations with all costs up to each."""
    spent = [
        (task.seq, task.timing.cpu_seconds)
        for task in history.record_index.tasks
        if task.kind in PARTS
    ]
    records = [seq for seq, _ in spent]
    sums = [0.0, *accumulate(seconds for _, seconds in spent)]
    return tuple(
        CostedGeneration(
            generation=facts.generation,
            expensive=facts.expensive,
            label_cost=facts.label_cost,
            all_cost=facts.label_cost + sums[bisect_right(records, entry.seq)],
            force_mae=facts.force_mae,
        )
        for facts, entry in zip(
            generation_facts(history), history.generations, strict=True
        )
        if facts.force_mae is not None and isfinite(facts.force_mae)
    )
