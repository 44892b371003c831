"""Comparison of surprise with true errors of frames. Pure functions.

Predictions of proposed frames are in the journal before their labels come, so no label
can have influenced them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.units import Booleans, Floats
from alloop.history.examination import force_error, labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.analysis.examination import counted_frames
from alloop.report.analysis.explorations import (
    Explorations,
    control_frames,
    labels_by_frame,
)

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
    every frame that got an expensive label after it was proposed.
    """
    limits = bad_errors(history)
    thresholds = {x.generation: x.threshold for _, x in history.generations}
    found = [
        *_test_points(history),
        *_examined_points(history),
        *_proposed_points(history, explored),
    ]
    return tuple(
        ErrorPoint(
            frame=point.frame,
            group=point.group,
            generation=point.generation,
            surprise=point.surprise,
            error=point.error,
            threshold=thresholds.get(point.generation),
            bad=_is_above(point.error, limits.get(point.generation)),
        )
        for point in found
    )


def _is_above(error: float, limit: float | None) -> bool | None:
    return None if limit is None else error > limit


def bad_errors(history: History) -> dict[int, float]:
    """Return the force error above which a frame is bad, by generation, eV/Å."""
    flagged = config_value(history, "flag", "error")
    if isinstance(flagged, int | float):
        return {x.generation: float(flagged) for _, x in history.generations}
    errors = ((x.generation, _test_errors(history, x)) for _, x in history.generations)
    return {
        generation: float(np.quantile(found, WORST))
        for generation, found in errors
        if len(found)
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
    asked = history.record_index.examinations
    number = asked[max(asked)].generation if asked else 0
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


def some_points(found: Sequence[ErrorPoint], most: int) -> tuple[ErrorPoint, ...]:
    """Return up to `most` points: the largest errors, an even sample of the rest."""
    if len(found) <= most:
        return tuple(found)
    worst = sorted(found, key=lambda point: -point.error)[: most // 4]
    step = 1 + len(found) // (most - len(worst))
    return tuple(dict.fromkeys([*worst, *found[::step]]))


def rank_correlations(found: Sequence[ErrorPoint]) -> tuple[RankCorrelation, ...]:
    """Return rank correlations by group and of all proposed and labelled frames."""
    groups = {
        "validation set": [x for x in found if x.group == "test"],
        "examination": [x for x in found if x.group == "examination"],
        "control frames": [x for x in found if x.group == "control"],
        "all labelled after being proposed": [
            x for x in found if x.group in ("control", "chosen")
        ],
    }
    return tuple(_rank_correlation(group, chosen) for group, chosen in groups.items())


def _rank_correlation(group: str, found: Sequence[ErrorPoint]) -> RankCorrelation:
    known = [point for point in found if np.isfinite(point.surprise)]
    if len(known) < ENOUGH:
        return RankCorrelation(group, len(known), float("nan"), float("nan"))
    surprise = np.array([point.surprise for point in known])
    errors = np.array([point.error for point in known])
    judged = [point for point in known if point.bad is not None]
    area = _auroc(
        np.array([point.surprise for point in judged]),
        np.array([bool(point.bad) for point in judged], dtype=np.bool_),
    )
    return RankCorrelation(group, len(known), _spearman(surprise, errors), area)


def _spearman(one: Floats, other: Floats) -> float:
    """Return Spearman's rank correlation; nan where either does not vary."""
    from scipy.stats import spearmanr  # a second to import

    if (one == one[0]).all() or (other == other[0]).all():
        return float("nan")
    return float(spearmanr(one, other).statistic)


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


def threshold_verdict(found: Sequence[ErrorPoint]) -> ThresholdVerdict:
    """Return the outcomes of the thresholds that applied to each frame."""
    counts = Counter(
        (point.surprise > point.threshold, point.bad)
        for point in found
        if point.group == "control"
        and point.threshold is not None
        and point.bad is not None
    )
    return ThresholdVerdict(
        hits=counts[True, True],
        misses=counts[False, True],
        false_alarms=counts[True, False],
        quiet=counts[False, False],
        enrichment=_error_enrichment(found),
    )


def _error_enrichment(found: Sequence[ErrorPoint]) -> float | None:
    chosen = [x.error for x in found if x.group == "chosen"]
    control = [x.error for x in found if x.group == "control"]
    if not chosen or not control:
        return None
    return float(np.mean(chosen) / np.mean(control))
