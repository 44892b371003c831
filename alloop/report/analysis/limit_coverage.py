"""The coverage of limits of errors promised before the labels came. Pure functions.

Validation frames are left out: the limits were made from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alloop.core.error_limits import ErrorLimits
from alloop.core.text import plural
from alloop.history.examination import force_error, limits_in_force
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.analysis.examination import counted_frames, threshold_sentences
from alloop.report.analysis.label_quality import barred_doubts
from alloop.report.text.formatting import and_list, milli_text
from alloop.scores.error_limits import needed_frames

_FEW = 10  # frames below which a share is no rate


@dataclass(frozen=True, slots=True)
class LimitCoverage:
    """Of n frames of a group, the number whose true error lay below its limit.

    coverage: the share that was promised.
    """

    group: str
    coverage: float
    n: int
    held: int

    @property
    def sentence(self) -> str:
        """The counts as a sentence."""
        few = "" if self.n >= _FEW else f" (n = {self.n} is too few for a rate)"
        return (
            f"Of {plural(self.n, self.group)} {self.held} erred by less than the limit "
            f"promised before their labels{few or self._rate}."
        )

    @property
    def _rate(self) -> str:
        """The share with its 95 % interval (Wilson), against what was promised."""
        from scipy.stats import binomtest  # slow to import

        interval = binomtest(self.held, self.n).proportion_ci(method="wilson")
        return (
            f", {self.held / self.n:.0%} ({interval.low:.0%} to {interval.high:.0%} at "
            f"95% confidence) against {self.coverage:.0%}"
        )


def newest_limits(history: History) -> tuple[e.Trained, ErrorLimits] | None:
    """Return the newest generation that has limits of its errors, with these.

    Where the generation that was examined last has limits that know the examination, it
    is that one.
    """
    found = [x for _, x in history.generations if x.error_limits is not None]
    examined = [x for x in found if x.model == _examined_model(history)]
    barred = barred_doubts(history)
    for event in (*examined, *reversed(found)):
        limits = limits_in_force(history, event, barred)
        if limits is not None and (limits.examined or event not in examined):
            return event, limits
    return None


def _examined_model(history: History) -> str | None:
    asked = history.record_index.examinations
    return asked[max(asked)].model if asked else None


def limit_coverages(history: History) -> tuple[LimitCoverage, ...]:
    """Return the coverage of control frames and of the examination, if known."""
    newest = newest_limits(history)
    if newest is None:
        return ()
    coverage = newest[1].coverage
    known = [
        x.limit_held for x in history.state.labels.entries() if x.limit_held is not None
    ]
    groups = {"control frame": known, "frame of the examination": _examined(history)}
    return tuple(
        LimitCoverage(group, coverage, len(held), sum(held))
        for group, held in groups.items()
        if held
    )


def _examined(history: History) -> list[bool]:
    model = _examined_model(history)
    limits = next(
        (x.error_limits for _, x in history.generations if x.model == model), None
    )
    if limits is None:
        return []
    return [
        force_error(said, label) <= limit
        for said, label in counted_frames(history)
        if np.isfinite(limit := limits.limit(said.surprise, said.frame))
    ]


def limit_sentences(history: History) -> Iterator[str]:
    """Yield what the newest limits promise, from what, and how often they held."""
    newest = newest_limits(history)
    if newest is None:
        yield from _missing_limits(history)
        return
    trained, limits = newest
    usual = milli_text(limits.limit(limits.centre))
    yield (
        f"Generation {trained.generation} promises limits of force errors that hold "
        f"for {limits.coverage:.0%} of frames like those that they were made from, "
        f"{_made_from(limits)}: {usual} meV/Å at the median surprise, and none where "
        "surprise or a bond length lies beyond all of theirs."
    )
    for found in limit_coverages(history):
        yield found.sentence


def calibration_sentences(history: History) -> Iterator[str]:
    """Yield the basis of the newest threshold, and of the limits of errors."""
    yield from threshold_sentences(history)
    yield from limit_sentences(history)


def _made_from(limits: ErrorLimits) -> str:
    parts = [plural(limits.frames - limits.examined, "validation frame")]
    if limits.examined:
        parts.append(f"{limits.examined} of the examination")
    if limits.controls:
        raised = limits.factor > 1.0
        by = f" (which raise them by {limits.factor:.2g})" if raised else ""
        parts.append(f"{plural(limits.controls, 'control frame')} of MD{by}")
    return and_list(parts)


def _missing_limits(history: History) -> Iterator[str]:
    tested = [x.evaluation for _, x in history.generations if x.evaluation is not None]
    if not history.generations:
        return
    count = len(tested[-1].frames) if tested else 0
    asked = config_value(history, "flag", "coverage")
    coverage = float(asked) if isinstance(asked, int | float) else 0.9
    needed = needed_frames(coverage)
    if count < needed:
        yield (
            f"There are no limits of force errors: a promise of {coverage:.0%} takes "
            f"{needed} validation frames, there are {count}."
        )
