"""Surprise against true errors of frames, and limits of errors, in the report.

Predictions of proposed frames are in the journal before their labels come, so no label
can have influenced them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.frame import FrameId
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.units import Booleans, Floats
from alloop.history.examination import force_error, labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_number, has_forces
from alloop.report.analysis.examination import (
    counted_frames,
    examination_request,
    limit_coverages,
    limit_sentences,
)
from alloop.report.analysis.explorations import (
    Explorations,
    control_frames,
    labels_by_frame,
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
from alloop.report.sections.svg import (
    COLOURS,
    INK,
    MOST_POINTS,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    log_axis,
)
from alloop.report.text.formatting import number_text, plural

WORST = 0.9  # a frame is bad if its error is above this quantile of the test errors
ENOUGH = 10  # frames below which no rank correlation is given


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """A frame whose true error is known.

    group: "test" (the validation set), "examination", "control" or "chosen" (for its
    surprise or its bias). error: length of the largest force error on an atom, eV/Å.
    bad: True if it is above `flag.error`, without that above the WORST quantile of the
    same generation's test errors; None where there are none.
    """

    frame: FrameId
    group: str
    generation: int
    surprise: float
    error: float
    threshold: float | None = None
    bad: bool | None = None


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """The rank correlation of surprise and error over n frames; nan if undefined."""

    group: str
    n: int
    spearman: float
    auroc: float


@dataclass(frozen=True, slots=True)
class ThresholdVerdict:
    """The outcomes of the flag threshold on control frames.

    hits: flagged and bad; misses: bad but not flagged; false_alarms: flagged but not
    bad; quiet: neither.
    """

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    quiet: int = 0
    enrichment: float | None = None  # mean error of chosen over that of control frames

    @property
    def n(self) -> int:
        """The number of control frames with a verdict."""
        return self.hits + self.misses + self.false_alarms + self.quiet


def error_points(history: History, explored: Explorations) -> tuple[ErrorPoint, ...]:
    """Return the frames with surprise and true error.

    They are the validation set under the best generation, the examination, and
    every frame that got an expensive label after it was proposed. There are none at an
    expensive level without forces.
    """
    if not has_forces(history):
        return ()
    limits = bad_errors(history)
    thresholds = {x.generation: x.threshold for _, x in history.generations}
    points = [
        *_test_points(history),
        *_examined_points(history),
        *_proposed_points(history, explored),
    ]
    return tuple(
        replace(
            point,
            threshold=thresholds.get(point.generation),
            bad=_is_above(point.error, limits.get(point.generation)),
        )
        for point in points
    )


def _is_above(error: float, limit: float | None) -> bool | None:
    return None if limit is None else error > limit


def bad_errors(history: History) -> dict[int, float]:
    """Return the force error above which a frame is bad, by generation, eV/Å."""
    limit = config_number(history, "flag", "error")
    if limit is not None:
        return {x.generation: limit for _, x in history.generations}
    errors = ((x.generation, _test_errors(history, x)) for _, x in history.generations)
    return {
        generation: float(np.quantile(values, WORST))
        for generation, values in errors
        if len(values)
    }


def _test_errors(history: History, trained: e.Trained) -> Floats:
    labels = labels_of_test(history, trained)
    if labels is None or trained.evaluation is None:
        return np.zeros(0)
    return largest_force_errors(labels.batch, trained.evaluation.forces, labels.forces)


def _test_points(history: History) -> Iterator[ErrorPoint]:
    for _, trained in history.best:
        test = trained.evaluation
        if test is None:
            continue
        errors = _test_errors(history, trained)
        for frame, surprise, error in zip(
            test.frames, test.surprise, errors, strict=True
        ):
            group, number = "test", trained.generation
            yield ErrorPoint(frame, group, number, float(surprise), float(error))


def _examined_points(history: History) -> Iterator[ErrorPoint]:
    request = examination_request(history)
    number = 0 if request is None else request.generation
    for candidate, label in counted_frames(history):
        frame, error = candidate.frame.id, force_error(candidate, label)
        yield ErrorPoint(frame, "examination", number, float(candidate.surprise), error)


def _proposed_points(history: History, explored: Explorations) -> Iterator[ErrorPoint]:
    controls, labels = control_frames(history), labels_by_frame(history, "expensive")
    for frame, origin in explored.origins.items():
        if frame in labels:
            group = "control" if frame in controls else "chosen"
            _, error = origin.differences["expensive"]
            yield ErrorPoint(frame, group, origin.generation, origin.surprise, error)


def some_points(points: Sequence[ErrorPoint], limit: int) -> tuple[ErrorPoint, ...]:
    """Return up to `limit` points: the largest errors, an even sample of the rest."""
    if len(points) <= limit:
        return tuple(points)
    worst = sorted(points, key=lambda point: -point.error)[: limit // 4]
    step = 1 + len(points) // (limit - len(worst))
    return tuple(dict.fromkeys([*worst, *points[::step]]))


def rank_correlations(points: Sequence[ErrorPoint]) -> tuple[RankCorrelation, ...]:
    """Return rank correlations by group and of all proposed and labelled frames."""
    groups = {
        "validation set": [x for x in points if x.group == "test"],
        "examination": [x for x in points if x.group == "examination"],
        "control frames": [x for x in points if x.group == "control"],
        "all labelled after being proposed": [
            x for x in points if x.group in ("control", "chosen")
        ],
    }
    return tuple(_rank_correlation(group, chosen) for group, chosen in groups.items())


def _rank_correlation(group: str, points: Sequence[ErrorPoint]) -> RankCorrelation:
    finite = [point for point in points if np.isfinite(point.surprise)]
    if len(finite) < ENOUGH:
        return RankCorrelation(group, len(finite), float("nan"), float("nan"))
    surprise = np.array([point.surprise for point in finite])
    errors = np.array([point.error for point in finite])
    judged = [point for point in finite if point.bad is not None]
    area = _auroc(
        np.array([point.surprise for point in judged]),
        np.array([bool(point.bad) for point in judged], dtype=np.bool_),
    )
    return RankCorrelation(group, len(finite), _spearman(surprise, errors), area)


def _spearman(surprise: Floats, errors: Floats) -> float:
    """Return Spearman's rank correlation; nan where either does not vary."""
    from scipy.stats import spearmanr  # a second to import

    if (surprise == surprise[0]).all() or (errors == errors[0]).all():
        return float("nan")
    return float(spearmanr(surprise, errors).statistic)


def _auroc(scores: Floats, positive: Booleans) -> float:
    """Return the chance that a positive one scores above a negative one.

    Ties count half: Mann and Whitney's U over n₊ n₋; nan where either class is empty.
    """
    from scipy.stats import mannwhitneyu

    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return float("nan")
    u = mannwhitneyu(above, below, method="asymptotic").statistic
    return float(u) / (len(above) * len(below))


def threshold_verdict(points: Sequence[ErrorPoint]) -> ThresholdVerdict:
    """Return the outcomes of the thresholds that applied to each frame."""
    counts = Counter(
        (point.surprise > point.threshold, point.bad)
        for point in points
        if point.group == "control"
        and point.threshold is not None
        and point.bad is not None
    )
    return ThresholdVerdict(
        hits=counts[True, True],
        misses=counts[False, True],
        false_alarms=counts[True, False],
        quiet=counts[False, False],
        enrichment=_error_enrichment(points),
    )


def _error_enrichment(points: Sequence[ErrorPoint]) -> float | None:
    chosen = [x.error for x in points if x.group == "chosen"]
    control = [x.error for x in points if x.group == "control"]
    if not chosen or not control:
        return None
    return float(np.mean(chosen) / np.mean(control))


def surprise_section(points: Sequence[ErrorPoint]) -> Section:
    """Return the section on surprise against true error.

    It includes the hits and misses of the flag threshold.
    """
    name = "Surprise against error"
    finite = tuple(x for x in points if np.isfinite(x.surprise))
    if not finite:
        why = (
            "No frame has both a surprise and a true error of its forces yet: that "
            "takes a generation with a scorer, an expensive level with forces, and a "
            "validation set or labels of proposed frames."
        )
        return Section("surprise", name, missing_note(why))
    caption = (
        "Surprise is alloop's measure of uncertainty: how far a frame lies outside of "
        "what the model learned from. Each point is a frame whose true error is known: "
        "its surprise for the model that proposed it (for the validation set, the best "
        "one), and the largest error of that model's force on one of its atoms, "
        "predicted before the label came. A useful surprise rises with the error; "
        "frames high on the left were missed. Control frames were drawn at random: "
        "only they show how often that happens."
    )
    drawn = some_points(finite, MOST_POINTS)
    if len(drawn) < len(finite):
        caption += (
            f" Of {len(finite)} frames {len(drawn)} are drawn: those with the largest "
            "errors, and an even sample of the others."
        )
    body = (
        figure_block(surprise_figure(drawn), caption)
        + _ranking_table(finite)
        + _verdict_text(finite)
    )
    return Section("surprise", name, body)


def _ranking_table(points: tuple[ErrorPoint, ...]) -> Markup:
    rows = [
        (x.group, str(x.n), number_text(x.spearman, 2), number_text(x.auroc, 2))
        for x in rank_correlations(points)
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


def _verdict_text(points: tuple[ErrorPoint, ...]) -> Markup:
    outcome = threshold_verdict(points)
    title = heading("Hits and misses of the flag threshold")
    if outcome.n == 0:
        why = (
            "No control frame was proposed under a threshold and a validation set yet."
        )
        return title + missing_note(why) + _enrichment_text(outcome)
    rows = [
        ("flagged", str(outcome.hits), str(outcome.false_alarms)),
        ("not flagged", str(outcome.misses), str(outcome.quiet)),
    ]
    words = (
        f"On {plural(outcome.n, 'random control frame')}: "
        f"{_count_text(outcome.hits)} flagged and {_count_text(outcome.misses)} missed."
    )
    if outcome.n < 3 * ENOUGH:
        words += f" n = {outcome.n} is too few for a rate."
    head = ("control frames", "bad", "good")
    return title + table_html(head, rows) + paragraph(words) + _enrichment_text(outcome)


def _count_text(count: int) -> str:
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


GROUPS = {
    "test": ("validation set", "dot", COLOURS["test"]),
    "examination": ("examination", "square", COLOURS["examination"]),
    "chosen": ("chosen for surprise or bias", "triangle", COLOURS["training"]),
    "control": ("random control frames", "diamond", COLOURS["cheap"]),
}


def surprise_figure(points: Sequence[ErrorPoint]) -> Markup:
    """Draw the largest force error against surprise, with the flag threshold.

    Frames are marked by their group.
    """
    shown = [x for x in points if np.isfinite(x.surprise) and np.isfinite(x.error)]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = [
            add_points(
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
        ax.set_xlabel("surprise (uncertainty) before the label came")
        ax.set_ylabel("largest force error, meV/Å")
        draw_legend(ax, ncols=1)
        return marks

    return draw_svg("surprise", "Surprise against true force error", 3.9, paint)


def _draw_threshold(axes: Axes, points: Sequence[ErrorPoint]) -> None:
    finite = [x for x in points if x.threshold is not None and np.isfinite(x.threshold)]
    if not finite:
        return
    last = max(finite, key=lambda point: point.generation)
    axes.axvline(float(last.threshold or 0.0), color=INK, linewidth=1.0, dashes=(4, 3))
    axes.annotate(
        f" threshold, generation {last.generation}",
        (float(last.threshold or 0.0), 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(2, 4),
        textcoords="offset points",
    )
