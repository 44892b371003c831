"""The coverage of limits of errors promised before the labels came. Pure functions.

Validation frames are left out: the limits were made from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alloop.core.error_limits import ErrorLimits
from alloop.core.text import plural
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.analysis.examination import examined_frames, threshold_sentences
from alloop.report.text.formatting import milli_text
from alloop.scores.error_limits import needed_frames

FEW = 30  # frames below which a share is no rate


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
        few = "" if self.n >= FEW else f" (n = {self.n} is too few for a rate)"
        share = f", {self.held / self.n:.0%} against {self.coverage:.0%}"
        return (
            f"Of {plural(self.n, self.group)} {self.held} erred by less than the limit "
            f"promised before their labels{few or share}."
        )


def newest_limits(history: History) -> tuple[e.Trained, ErrorLimits] | None:
    """Return the newest generation that has limits of its errors, with these."""
    found = [
        (event, event.error_limits)
        for _, event in history.generations
        if event.error_limits is not None
    ]
    return found[-1] if found else None


def limit_coverages(history: History) -> tuple[LimitCoverage, ...]:
    """Return the coverage of control frames and of the final examination, if known."""
    newest = newest_limits(history)
    if newest is None:
        return ()
    coverage = newest[1].coverage
    known = [x.limit_held for x in history.state.entries() if x.limit_held is not None]
    groups = {"control frame": known, "frame of the examination": _examined(history)}
    return tuple(
        LimitCoverage(group, coverage, len(held), sum(held))
        for group, held in groups.items()
        if held
    )


def _examined(history: History) -> list[bool]:
    asked = history.record_index.examinations
    model = asked[max(asked)].model if asked else None
    limits = next(
        (x.error_limits for _, x in history.generations if x.model == model), None
    )
    if limits is None:
        return []
    return [
        bool(np.linalg.norm(said.forces - label.forces, axis=1).max() <= limit)
        for said, label in examined_frames(history)
        for limit in limits.limits(np.array([said.surprise]))
        if np.isfinite(limit)
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
        f"for {limits.coverage:.0%} of frames like the {limits.frames} "
        f"{'validation frames' if not limits.controls else 'of validation'} that they "
        f"were made from{_control_text(limits)}: {usual} meV/Å at the median surprise."
    )
    for found in limit_coverages(history):
        yield found.sentence


def calibration_sentences(history: History) -> Iterator[str]:
    """Yield the basis of the newest threshold, and of the limits of errors."""
    yield from threshold_sentences(history)
    yield from limit_sentences(history)


def _control_text(limits: ErrorLimits) -> str:
    if not limits.controls:
        return ""
    raised = f", which raise them by {limits.factor:.2g}" if limits.factor > 1.0 else ""
    return f" and {plural(limits.controls, 'control frame')} of MD{raised}"


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
