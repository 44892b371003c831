"""Comparison of several campaigns on one page: learning curves, costs and settings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from alloop.core.errors import InputError
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    generation_facts,
    level_title,
)
from alloop.report.analysis.comparison import TITLES, CampaignCurve, costed_generations
from alloop.report.analysis.examination import last_examination
from alloop.report.sections.error_figures import several_figures
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
from alloop.report.text.formatting import and_list, duration_text, milli_text, plural

_COLOURS = ("#2f6fd0", "#e07b39", "#1a9e8f", "#8a7fe0", "#d1495b", "#8a9a2e", "#c2487f")
_OWN = ("name", "store", "cache")  # sections that differ between any two campaigns


@dataclass(frozen=True, slots=True, eq=False)
class ComparedCampaign:
    """A campaign with its controls by name."""

    history: History
    controls: Mapping[str, History]


def comparison_page(compared: Sequence[ComparedCampaign]) -> str:
    """Return the page as text; raise InputError for fewer than two campaigns."""
    if len(compared) < 2:
        raise InputError(
            f"expected two stores or more to compare, got {len(compared)}; `alloop "
            "report STORE` reports on one"
        )
    names = campaign_names([each.history for each in compared])
    curves = [
        curve
        for number, (name, each) in enumerate(zip(names, compared, strict=True))
        for curve in _campaign_curves(name, each, _COLOURS[number % len(_COLOURS)])
    ]
    histories = [each.history for each in compared]
    return render_page(
        title=" · ".join(names),
        kind="campaigns compared",
        where=and_list(str(each.path) for each in histories),
        lead=_lead_list(histories),
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
    names = [str(each.attrs["name"]) for each in histories]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} ({each.path})"
        for name, each in zip(names, histories, strict=True)
    ]


def differing_settings(histories: Sequence[History]) -> dict[str, list[str]]:
    """Return the settings in force that are not the same in all campaigns.

    Keys are their dotted names; a value is `–` where a campaign has none.
    """
    trees = [dict(_flat_settings(yaml.safe_load(each.config))) for each in histories]
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
    name: str, each: ComparedCampaign, colour: str
) -> Iterator[CampaignCurve]:
    yield CampaignCurve(name, "", colour, costed_generations(each.history))
    for control, history in each.controls.items():
        yield CampaignCurve(name, control, colour, costed_generations(history))


def _lead_list(histories: Sequence[History]) -> Markup:
    caveats = list(_caveats(histories))
    return bullet_list(caveats, "weak") if caveats else Markup("")


def _caveats(histories: Sequence[History]) -> Iterator[str]:
    """Yield the reasons why the errors may not be comparable."""
    levels = {each.opened.levels["expensive"] for each in histories}
    if len(levels) > 1:
        named = and_list(
            dict.fromkeys(level_title(each, "expensive") for each in histories)
        )
        yield (
            f"The expensive levels differ ({named}): each campaign's error is against "
            "its own."
        )
    tests = {frozenset(each.state.labels.validation_frames()) for each in histories}
    if len(tests) > 1:
        sizes = and_list(
            str(len(each.state.labels.validation_frames())) for each in histories
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
    return colour_swatch(curve.colour, _curve_name(curve))


def _curve_name(curve: CampaignCurve) -> str:
    control = TITLES.get(curve.control, curve.control)
    return f"{curve.name}: {control}" if control else curve.name


def _end_table(
    curves: Sequence[CampaignCurve], compared: Sequence[ComparedCampaign]
) -> Markup:
    histories = [
        history
        for each in compared
        for history in (each.history, *each.controls.values())
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
    found = last_examination(history)
    if found is None or found.errors is None:
        return "–"
    frames = plural(found.frames, "frame")
    error = milli_text(found.errors.force_mae)
    return f"{error} (generation {found.generation}, {frames})"


def _settings_table(names: Sequence[str], histories: Sequence[History]) -> Markup:
    found = differing_settings(histories)
    if not found:
        return missing_note("All settings are the same, but for names and places.")
    rows = [(key, *row) for key, row in found.items()]
    note = f"{plural(len(found), 'setting')} in force; all others are the same."
    return paragraph(note) + table_html(("setting", *names), rows, words=1 + len(names))
