"""Sections of the report on surprise, bias and the map of descriptors."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import is_single
from alloop.report.analysis.descriptor_map import DescriptorMap
from alloop.report.analysis.explorations import Explorations
from alloop.report.analysis.limit_coverage import limit_coverages, limit_sentences
from alloop.report.analysis.model_errors import bias_data
from alloop.report.analysis.uncertainty import (
    ENOUGH,
    WORST,
    ErrorPoint,
    ThresholdVerdict,
    rank_correlations,
    some_points,
    threshold_verdict,
)
from alloop.report.sections.error_figures import (
    bias_figure,
    surprise_figure,
)
from alloop.report.sections.markup import (
    Section,
    bullet_list,
    figure_block,
    heading,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.sections.run_figures import (
    map_figure,
)
from alloop.report.sections.svg import MOST_POINTS
from alloop.report.text.formatting import number_text, plural


def surprise_section(points: Sequence[ErrorPoint]) -> Section:
    """Return the section on surprise against true error.

    It includes the hits and misses of the flag threshold.
    """
    name = "Surprise against error"
    found = tuple(x for x in points if np.isfinite(x.surprise))
    if not found:
        why = (
            "No frame has both a surprise and a true error yet: that takes a "
            "generation with a scorer, and a validation set or labels of proposed "
            "frames."
        )
        return Section("surprise", name, missing_note(why))
    caption = (
        "Surprise is alloop's measure of uncertainty: how far a frame lies outside of "
        "what the model learned from. "
        "Each point is a frame whose true error is known: its surprise for the model "
        "that proposed it (for the validation set, the best one), and the largest "
        "error of that model's force on one of its atoms, predicted before the label "
        "came. A useful surprise rises with the error; frames high on the left were "
        "missed. Control frames were drawn at random: only they show how often that "
        "happens."
    )
    drawn = some_points(found, MOST_POINTS)
    if len(drawn) < len(found):
        caption += (
            f" Of {len(found)} frames {len(drawn)} are drawn: those with the largest "
            "errors, and an even sample of the others."
        )
    body = (
        figure_block(surprise_figure(drawn), caption)
        + _ranking_table(found)
        + _verdict_text(found)
    )
    return Section("surprise", name, body)


def _ranking_table(found: tuple[ErrorPoint, ...]) -> Markup:
    rows = [
        (x.group, str(x.n), number_text(x.spearman, 2), number_text(x.auroc, 2))
        for x in rank_correlations(found)
    ]
    head = ("frames", "n", "Spearman's ρ", "AUROC")
    note = paragraph(
        "Spearman's ρ is the rank correlation of surprise and error: 1 is perfect, 0 "
        "is none. AUROC is the chance that a bad frame surprises more than a good one: "
        f"1 is perfect, 0.5 is guessing. Below {ENOUGH} frames neither is given. A "
        "frame is bad if its error exceeds `flag.error`; without that, the error of "
        f"{WORST:.0%} of the validation set under the same generation."
    )
    return table_html(head, rows) + note


def _verdict_text(found: tuple[ErrorPoint, ...]) -> Markup:
    outcome = threshold_verdict(found)
    title_ = heading("Hits and misses of the flag threshold")
    if outcome.n == 0:
        why = (
            "No control frame was proposed under a threshold and a validation set yet."
        )
        return title_ + missing_note(why) + _enrichment_text(outcome)
    rows = [
        ("flagged", str(outcome.hits), str(outcome.false_alarms)),
        ("not flagged", str(outcome.misses), str(outcome.quiet)),
    ]
    words = (
        f"On {plural(outcome.n, 'random control frame')}: "
        f"{_were(outcome.hits)} flagged and {_were(outcome.misses)} missed."
    )
    if outcome.n < 3 * ENOUGH:
        words += f" n = {outcome.n} is too few for a rate."
    head = ("control frames", "bad", "good")
    return (
        title_ + table_html(head, rows) + paragraph(words) + _enrichment_text(outcome)
    )


def _were(count: int) -> str:
    return f"{plural(count, 'bad frame')} {'was' if count == 1 else 'were'}"


def _enrichment_text(outcome: ThresholdVerdict) -> Markup:
    if outcome.enrichment is None:
        return Markup("")
    return paragraph(
        f"Errors of selected frames are {outcome.enrichment:.1f} times those of "
        "control frames (mean of the largest force errors). The gain from "
        "selection itself is measured by the controls' learning curves only."
    )


def limits_section(history: History) -> Section:
    """Return the section on limits of errors, and how often they held."""
    name = "Limits of errors"
    sentences = list(limit_sentences(history))
    if not sentences:
        why = "No generation was trained yet, so that no error is limited."
        return Section("limits", name, missing_note(why))
    rows = [
        (plural(x.n, x.group), str(x.held), f"{x.coverage * x.n:.1f}")
        for x in limit_coverages(history)
    ]
    head = ("frames", "below their limit", "promised")
    note = (
        "A limit is one of the largest error of the force on an atom, as a function of "
        "surprise. It was promised by the model that proposed the frame, before its "
        "label came; frames without a limit are not counted."
    )
    table = table_html(head, rows) + paragraph(note) if rows else Markup("")
    return Section("limits", name, bullet_list(sentences) + table)


def bias_section(history: History, explored: Explorations) -> Section:
    """Return the section on the bias of cheap labels."""
    name = "Bias of the cheap labels"
    found = bias_data(history, explored)
    if is_single(history):
        why = (
            "This campaign has one fidelity only: there is no cheap label to be biased."
        )
        return Section("bias", name, missing_note(why))
    if not found.generation and not len(found.levels):
        why = "No bias is known yet: no model has been compared with a cheap label."
        return Section("bias", name, missing_note(why))
    source = (
        "as its training found it after the first stage, and weighed cheap labels by it"
        if found.trained
        else "of the frames it proposed, taken when their cheap labels came"
    )
    caption = (
        "B is the mean absolute difference between the model's forces and the cheap "
        f"label of a frame, {source}; the line is the median. The last row needs no "
        "model: it compares cheap and expensive labels of the same frames. B well "
        "above that row is the model's own error, B near it is the cheap level's."
    )
    return Section("bias", name, figure_block(bias_figure(found), caption))


def descriptor_section(found: DescriptorMap | None) -> Section:
    """Return the section with the map of descriptors."""
    name = "Map of descriptors"
    if found is None:
        why = (
            "Nothing to draw: there is no generation yet, or neither the store nor "
            "its models hold descriptors."
        )
        return Section("map", name, missing_note(why))
    caption = (
        f"Each point is a frame: its descriptors by generation {found.generation}, "
        "averaged over its atoms, in the plane in which they differ most (principal "
        "components). Neighbours look alike to the model. Flagged frames should lie "
        "at the rim of the first labels, the validation set should cover all "
        "regions: its frames far from all others, or regions without any, are where "
        "the error is not known."
    )
    if not found.complete:
        caption += (
            " The model could not be opened here: drawn are the frames that it "
            "proposed, as the journal describes them; it holds no others."
        )
    if len(found.frames) < found.of:
        caption += f" {len(found.frames)} of {found.of} frames are drawn, evenly."
    return Section("map", name, figure_block(map_figure(found), caption))
