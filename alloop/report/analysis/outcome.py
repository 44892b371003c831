"""The outcome of a campaign in four facts: error, limits, controls and cost.

The command line and the report tell these in the same words. Controls are compared at
equal label cost. Pure functions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from alloop.core.prediction_errors import frame_errors
from alloop.core.records import Predictions
from alloop.history.examination import labels_of_test
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    best_generation,
    error_unit,
    generation_facts,
    has_forces,
    level_title,
    supplied_validation,
    validation_origin,
)
from alloop.report.analysis.examination import (
    LimitCoverage,
    beyond_md,
    last_examination,
    limit_coverages,
    limit_sentences,
    newest_limits,
    where_measured,
)
from alloop.report.analysis.label_facts import BUDGETED, label_totals
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)

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
    candidates = (
        _compare_examined(history, control),
        _compare_validation(history, ours, control, other),
    )
    pairs = [pair for pair in candidates if pair is not None]
    if supplied_validation(history):
        pairs.reverse()
    return ControlComparison(name, ours, other, tuple(pairs)) if pairs else None


def _compare_examined(history: History, control: History) -> ErrorPair | None:
    """Compare the two on the examination, None unless both had it."""
    ours, theirs = last_examination(history), last_examination(control)
    if ours is None or theirs is None or not (ours.errors and theirs.errors):
        return None
    noise = _error_noise(ours.by_frame, theirs.by_frame)
    our_error, their_error = ours.errors.force_mae, theirs.errors.force_mae
    frames = where_measured(ours, "the campaign's model") + " (examination)"
    return ErrorPair(frames, our_error, their_error, ours.frames, noise)


def _compare_validation(
    history: History, ours: GenerationFacts, control: History, theirs: GenerationFacts
) -> ErrorPair | None:
    """Compare the two on the validation set, None unless both were tested on it."""
    if ours.force_mae is None or theirs.force_mae is None:
        return None
    our_errors = _frame_errors(history, ours.generation)
    their_errors = _frame_errors(control, theirs.generation)
    frames = f"{plural(ours.test, 'frame')} of the validation set"
    noise = _error_noise(our_errors, their_errors)
    return ErrorPair(frames, ours.force_mae, theirs.force_mae, ours.test, noise)


def _cost_distance(ours: float, theirs: float) -> float:
    """Return the absolute logarithm of the ratio of two costs."""
    return abs(math.log(max(ours, _INSTANT) / max(theirs, _INSTANT)))


def compare_controls(
    history: History, controls: Mapping[str, History]
) -> tuple[ControlComparison, ...]:
    """Return the comparisons with all controls for which there is one."""
    comparisons = (
        compare_control(history, name, control) for name, control in controls.items()
    )
    return tuple(x for x in comparisons if x is not None)


def _error_noise(
    ours: Mapping[str, float], theirs: Mapping[str, float]
) -> float | None:
    if ours.keys() != theirs.keys() or len(ours) < 2:
        return None
    difference = np.array([ours[frame] - theirs[frame] for frame in sorted(ours)])
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
    errors = frame_errors(Predictions(test.energies, test.forces), labels)
    return dict(zip(test.frames, errors.tolist(), strict=True))


_NOT_RUN = "`alloop run FILE --controls` runs two at the same label cost"


@dataclass(frozen=True, slots=True)
class OutcomeFact:
    """A fact on the outcome: its head, which a tile shows large, and the rest.

    joint: what stands between the two in a sentence.
    """

    head: str
    rest: str = ""
    joint: str = ": "

    def __str__(self) -> str:
        return f"{self.head}{self.joint}{self.rest}" if self.rest else self.head


@dataclass(frozen=True, slots=True)
class MeasuredError:
    """An error of one generation on one set of frames, in eV and eV/Å.

    name: `examination`, `beyond MD` or `validation set`; where: a description of its
    frames. energy: MAE after the mean difference is removed.
    """

    name: str
    where: str
    frames: int
    generation: int
    force_mae: float
    force_rmse: float | None
    energy: float | None

    @property
    def value(self) -> float | None:
        """The error of forces, or of energies where the level has no forces."""
        return self.force_mae if isfinite(self.force_mae) else self.energy


def measured_errors(history: History) -> tuple[MeasuredError, ...]:
    """Return the errors of the best generation, the leading one first.

    The examination leads, or a validation set that the user supplied.
    """
    errors = [*_examination_error(history), *_validation_error(history)]
    errors = errors[::-1] if supplied_validation(history) else errors
    return (*errors, *_beyond_error(history))


def _beyond_error(history: History) -> Iterator[MeasuredError]:
    beyond = beyond_md(history)
    if beyond is not None and beyond.errors is not None:
        frames = plural(beyond.frames, "frame")
        yield MeasuredError(
            name="beyond MD",
            where=f"{frames} with bonds turned and stretched at random",
            frames=beyond.frames,
            generation=beyond.generation,
            force_mae=beyond.errors.force_mae,
            force_rmse=beyond.errors.force_rmse,
            energy=beyond.errors.energy_spread,
        )


def _examination_error(history: History) -> Iterator[MeasuredError]:
    examination = last_examination(history)
    if examination is not None and examination.errors is not None:
        yield MeasuredError(
            name="examination",
            where=where_measured(examination, "the model"),
            frames=examination.frames,
            generation=examination.generation,
            force_mae=examination.errors.force_mae,
            force_rmse=examination.errors.force_rmse,
            energy=examination.errors.energy_spread,
        )


def _validation_error(history: History) -> Iterator[MeasuredError]:
    best = best_generation(history)
    if best is not None and best.force_mae is not None:
        yield MeasuredError(
            name="validation set",
            where=f"{plural(best.test, 'frame')} {validation_origin(history)}",
            frames=best.test,
            generation=best.generation,
            force_mae=best.force_mae,
            force_rmse=best.force_rmse,
            energy=best.energy_mae,
        )


def outcome_facts(
    history: History, controls: Mapping[str, History]
) -> dict[str, OutcomeFact]:
    """Return error, limits, controls and cost by these names."""
    return {
        "error": _error_fact(history),
        "limits": _limit_fact(history),
        "controls": _control_fact(history, controls),
        "cost": _cost_fact(history),
    }


def _error_fact(history: History) -> OutcomeFact:
    """Return the leading error with its level and frames, and the other one."""
    errors = measured_errors(history)
    if not errors:
        return _no_error_fact(history)
    lead, *others = errors
    what = "forces" if has_forces(history) else "energies"
    text = (
        f"in {what} (MAE) against {level_title(history, 'expensive')} on "
        f"{lead.where} (the {lead.name})"
    )
    rest = "; ".join([text, *(_other_text(x) for x in others)])
    head = f"{milli_text(lead.value)} {error_unit(history)}"
    return OutcomeFact(head, rest, joint=" ")


def _other_text(error: MeasuredError) -> str:
    frames = plural(error.frames, "frame")
    return f"{milli_text(error.value)} on the {frames} of the {error.name}"


def _no_error_fact(history: History) -> OutcomeFact:
    if not history.generations:
        return OutcomeFact("not known yet", "there is no generation")
    why = "there is neither an examination nor a validation set"
    if last_examination(history) is not None:
        why = "no frame of the examination has a label that counts"
    return OutcomeFact("not known", why)


def leading_coverage(history: History) -> LimitCoverage | None:
    """Return how often limits of errors held, on the examination if it is known."""
    coverages = limit_coverages(history)
    return coverages[-1] if coverages else None


def limits_kept(limits: LimitCoverage) -> bool:
    """Return whether limits held as often as promised, up to two standard errors."""
    spread = sqrt(limits.coverage * (1.0 - limits.coverage) / limits.n)
    return limits.held / limits.n >= limits.coverage - 2.0 * spread


def _limit_fact(history: History) -> OutcomeFact:
    """Return whether the limits of force errors held, or why that is not known."""
    limits = leading_coverage(history)
    if limits is not None:
        return OutcomeFact(
            "kept" if limits_kept(limits) else "not kept",
            f"{limits.held} of {plural(limits.n, limits.group)} erred by less than the "
            f"limit promised ({limits.coverage:.0%} were to)",
        )
    if newest_limits(history) is None:
        return OutcomeFact("none yet", next(limit_sentences(history), "").rstrip("."))
    examined = last_examination(history)
    why = "there was no examination"
    if examined is not None:
        why = (
            f"none of the {plural(examined.frames, 'frame')} of the examination has a "
            "limit, since all lie beyond those that the limits were made from"
        )
    return OutcomeFact("not measured", why)


def _control_fact(history: History, controls: Mapping[str, History]) -> OutcomeFact:
    """Return the comparisons with the controls on the frames that lead."""
    comparisons = compare_controls(history, controls)
    if not comparisons:
        return OutcomeFact("none were run", _NOT_RUN, joint="; ")
    lead = comparisons[0].pairs[0]
    against = and_list(_control_text(comparison) for comparison in comparisons)
    return OutcomeFact(
        _control_verdict(comparisons),
        f"{milli_text(lead.ours)} {error_unit(history)} against {against}, at equal "
        f"label cost on the same {plural(lead.n, 'frame')}",
    )


def _control_text(comparison: ControlComparison) -> str:
    lead = comparison.pairs[0]
    doubt = "" if lead.certain else " (within the noise)"
    name = TITLES.get(comparison.name, comparison.name)
    return f"{milli_text(lead.theirs)} by {name}{doubt}"


def _control_verdict(comparisons: Sequence[ControlComparison]) -> str:
    """Return the verdict on all controls, in two words or three."""
    certain = [x for x in comparisons if x.certain]
    if any(x.gain < 0 for x in certain):
        return "worse than one"
    if len(certain) == len(comparisons):
        return f"better than {'both' if len(comparisons) > 1 else 'one'}"
    return "better than one" if certain else "no difference"


def _cost_fact(history: History) -> OutcomeFact:
    """Return the CPU time and how far the budget went."""
    spent = sum(cpu_seconds_by_part(history).values())
    if not spent:
        return OutcomeFact("no CPU time spent yet")
    rest = f"of CPU time; {budget_text(history)}"
    return OutcomeFact(duration_text(spent), rest, joint=" ")


def budget_text(history: History) -> str:
    """Return the used and the allowed labels of each level, with those that failed."""
    parts = []
    for totals in label_totals(history):
        if totals.kind in BUDGETED:
            allowance = "" if totals.budget is None else f" of {totals.budget}"
            lost = f" ({failure_counts(totals.failures)})" if totals.failed else ""
            parts.append(f"{totals.used}{allowance} {totals.kind} labels{lost}")
    return and_list(parts)
