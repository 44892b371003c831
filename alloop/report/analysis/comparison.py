"""A campaign beside its controls at equal label cost, and costs of learning curves."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from alloop.core.units import Floats
from alloop.history.examination import labels_of_test
from alloop.history.measured_costs import PARTS
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    best_generation,
    generation_facts,
    supplied_validation,
)
from alloop.report.analysis.examination import last_examination, where_measured
from alloop.report.text.formatting import duration_text, milli_text, plural

_INSTANT = 1e-9  # s: the least label cost; unmeasurable costs count as this

_SAME = 1e-6  # relative difference up to which two errors count as equal

TITLES = {"standard": "standard training", "random": "random selection"}


@dataclass(frozen=True, slots=True)
class ErrorPair:
    """Two force MAEs on the same frames, eV/Å.

    noise: twice the standard error of the mean difference over the n frames, None where
    the two were not tested on the same frames.
    """

    where: str
    ours: float
    theirs: float
    n: int
    noise: float | None

    @property
    def gain(self) -> float:
        """The reduction of our error relative to theirs, as a fraction of theirs."""
        return 1.0 - self.ours / self.theirs

    @property
    def certain(self) -> bool:
        """Return True if the difference exceeds the noise of the frames."""
        difference = abs(self.ours - self.theirs)
        return self.noise is not None and difference > max(
            self.noise, _SAME * self.theirs
        )

    @property
    def phrase(self) -> str:
        """The comparison in words: `0.49 against 0.93 meV/Å on ...`."""
        doubt = "" if self.certain else _comparison_doubt(self)
        numbers = f"{milli_text(self.ours)} against {milli_text(self.theirs)}"
        return f"{numbers} meV/Å on {self.where}{doubt}"


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """The campaign's best generation and the control's of closest label cost.

    pairs: first on the frames that lead (the examination, or the validation set
    where the user supplied one), then on the others. Costs are CPU seconds of labels.
    """

    name: str
    ours: GenerationFacts
    theirs: GenerationFacts
    pairs: tuple[ErrorPair, ...]

    @property
    def gain(self) -> float:
        """The reduction of our error on the leading frames, as a fraction of theirs."""
        return self.pairs[0].gain

    @property
    def certain(self) -> bool:
        """Return True if the difference exceeds the noise of the frames that lead."""
        return self.pairs[0].certain

    @property
    def noise(self) -> float | None:
        """The noise of the difference on the frames that lead, eV/Å."""
        return self.pairs[0].noise

    @property
    def sentence(self) -> str:
        """The outcome in words, also where the control did better."""
        verb = "beat" if self.gain > 0 else "did not beat"
        who = TITLES.get(self.name, self.name)
        return (
            f"The campaign {verb} {who}: {'; '.join(x.phrase for x in self.pairs)}; "
            f"for {duration_text(self.ours.label_cost)} and "
            f"{duration_text(self.theirs.label_cost)} of labels."
        )


def _comparison_doubt(pair: ErrorPair) -> str:
    if pair.noise is None:
        return " (the two were tested on different frames)"
    return f" (a difference within the noise of {plural(pair.n, 'frame')})"


def compare_control(
    history: History, name: str, control: History
) -> ControlComparison | None:
    """Return the comparison with one control, None without errors to compare."""
    ours, generations = best_generation(history), generation_facts(control)
    if ours is None or not generations:
        return None
    tested = [x for x in generations if x.force_mae is not None] or generations
    other = min(
        reversed(tested), key=lambda x: _cost_distance(x.label_cost, ours.label_cost)
    )
    found = (
        _compare_examined(history, control),
        _compare_validation(history, ours, control, other),
    )
    pairs = [pair for pair in found if pair is not None]
    if supplied_validation(history):
        pairs.reverse()
    return ControlComparison(name, ours, other, tuple(pairs)) if pairs else None


def _compare_examined(history: History, control: History) -> ErrorPair | None:
    """Compare the two on the examination, None unless both had it."""
    ours, theirs = last_examination(history), last_examination(control)
    if ours is None or theirs is None or not (ours.errors and theirs.errors):
        return None
    noise = _error_noise(ours.by_frame, theirs.by_frame)
    one, other = ours.errors.force_mae, theirs.errors.force_mae
    frames = where_measured(ours, "the campaign's model") + " (examination)"
    return ErrorPair(frames, one, other, ours.frames, noise)


def _compare_validation(
    history: History, ours: GenerationFacts, control: History, theirs: GenerationFacts
) -> ErrorPair | None:
    """Compare the two on the validation set, None unless both were tested on it."""
    if ours.force_mae is None or theirs.force_mae is None:
        return None
    one = _frame_errors(history, ours.generation)
    other = _frame_errors(control, theirs.generation)
    frames = f"{plural(ours.test, 'frame')} of the validation set"
    noise = _error_noise(one, other)
    return ErrorPair(frames, ours.force_mae, theirs.force_mae, ours.test, noise)


def _cost_distance(one: float, other: float) -> float:
    """Return the absolute logarithm of the ratio of two costs."""
    return abs(math.log(max(one, _INSTANT) / max(other, _INSTANT)))


def compare_controls(
    history: History, controls: Mapping[str, History]
) -> tuple[ControlComparison, ...]:
    """Return the comparisons with all controls for which there is one."""
    found = (
        compare_control(history, name, control) for name, control in controls.items()
    )
    return tuple(x for x in found if x is not None)


def _error_noise(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    if one.keys() != other.keys() or len(one) < 2:
        return None
    difference = np.array([one[frame] - other[frame] for frame in sorted(one)])
    return float(2.0 * difference.std(ddof=1) / np.sqrt(len(difference)))


def _frame_errors(history: History, generation: int) -> dict[str, float]:
    """Return the mean absolute force error by validation frame, eV/Å."""
    for _, trained in history.generations:
        if trained.generation == generation and trained.evaluation is not None:
            return _evaluation_errors(history, trained, trained.evaluation)
    return {}


def _evaluation_errors(
    history: History, trained: e.Trained, test: e.Evaluation
) -> dict[str, float]:
    labels = labels_of_test(history, trained)
    if labels is None:
        return {}
    errors: Floats = np.abs(test.forces - labels.forces)
    means = [float(errors[span].mean()) for span in labels.batch.atom_slices()]
    return dict(zip(test.frames, means, strict=True))


_DASHES = {"": "-", "standard": "--", "random": ":"}


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
    """The generations of a campaign, or of its control with that name."""

    name: str
    control: str
    colour: str
    generations: tuple[CostedGeneration, ...]

    @property
    def dash(self) -> str:
        """The line style of the curve."""
        return _DASHES.get(self.control, "-.")


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
        if facts.force_mae is not None
    )
