"""The weaknesses of a campaign's outcome, each with the YAML that mends it.

Pure functions. A weakness has a cost, as a share of the error, of its certainty or of
the work, by which they are ordered. What costs nothing is a fact and stands elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from alloop.core.records import Failure
from alloop.history.measured_costs import worker_utilisation
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    best_generation,
    config_value,
    generation_facts,
    supplied_validation,
)
from alloop.report.analysis.comparison import TITLES, compare_controls
from alloop.report.analysis.examination import last_examination
from alloop.report.analysis.label_facts import label_totals
from alloop.report.analysis.label_quality import is_excluded, label_qualities
from alloop.report.analysis.limit_coverage import newest_limits
from alloop.report.analysis.outcome import (
    leading_coverage,
    limits_kept,
    measured_errors,
)
from alloop.report.text.formatting import failure_text, milli_text, plural
from alloop.scores.error_limits import needed_frames

MOST = 3
_LEAST = 0.05  # a smaller share is no weakness
_SURE = 0.1  # uncertainty of an error, as a share of it, that is good enough
_MOST_FRAMES = 500  # of an examination that is advised
_EXAMINATION = 30  # frames of an examination, where there was none
_BUSY = 0.5  # share of the workers' time, below which they idle

# Keys of `limits:` that mend a failure, with their defaults.
_LIMITS = {
    Failure.TIMEOUT: ("label_time", 3600.0),
    Failure.MEMORY: ("label_memory", 8000.0),
}
_FORCE = 30.0  # eV/Å: the default of the guard

# Failures of distorted frames, rarer where a guard stops walkers earlier.
_DISTORTED = {
    *(Failure.GEOMETRY, Failure.NOT_CONVERGED, Failure.CC_NOT_CONVERGED),
    *(Failure.GATE, Failure.UNSTABLE),
}


@dataclass(frozen=True, slots=True)
class Weakness:
    """A weakness of the outcome.

    cost: a share, 1 for all; cost_text: of what, in words. mend: lines of the campaign
    file.
    """

    text: str
    mend: str
    cost: float
    cost_text: str


def weaknesses(history: History, controls: Mapping[str, History]) -> list[Weakness]:
    """Return what cost the campaign most, at most three, the costliest first.

    Two that one change would mend count once.
    """
    found = [
        *_unknown_error(history),
        *_lost_comparisons(history, controls),
        *_falling_curve(history),
        *_stopped_walkers(history),
        *_uncertain_error(history),
        *_broken_limits(history),
        *_failed_labels(history),
        *_doubtful_labels(history),
        *_idle_workers(history),
    ]
    kinds: dict[str, Weakness] = {}
    for each in sorted(found, key=lambda x: -x.cost):
        if each.cost >= _LEAST:
            kinds.setdefault(each.mend, each)
    return list(kinds.values())[:MOST]


def _unknown_error(history: History) -> Iterator[Weakness]:
    if not history.generations or not history.state.finished:
        return
    if not measured_errors(history):
        yield Weakness(
            "No error is known: there is neither an examination nor a validation set.",
            f"validation: {{frames: 30, examination: {_EXAMINATION}}}",
            cost=1.0,
            cost_text="the whole outcome is uncertain",
        )
    elif last_examination(history) is None and not supplied_validation(history):
        yield Weakness(
            "There was no examination: the only error known is that on the "
            "validation set, which steered the campaign.",
            f"validation: {{examination: {_EXAMINATION}}}",
            cost=1.0,
            cost_text="the error in MD on the model is unknown",
        )


def _lost_comparisons(
    history: History, controls: Mapping[str, History]
) -> Iterator[Weakness]:
    for each in compare_controls(history, controls):
        lead = each.pairs[0]
        if lead.gain >= 0 or not lead.certain:
            continue
        share = 1.0 - lead.theirs / lead.ours
        mends = {
            "standard": "training: {kind: standard}\n"
            f"budget: {{cheap: 0, expensive: {each.theirs.expensive}}}\n"
            "seeds: {cheap: 0}",
            "random": "flag: {selection: random}",
        }
        yield Weakness(
            f"{TITLES.get(each.name, each.name).capitalize()} did better for the same "
            f"label cost: {milli_text(lead.theirs)} against {milli_text(lead.ours)} "
            f"meV/Å on {lead.where}.",
            mends.get(each.name, ""),
            cost=share,
            cost_text=f"{share:.0%} of the error",
        )


def _more_labels(history: History) -> str:
    """Return the line of YAML that doubles the expensive labels."""
    used = next(x.used for x in label_totals(history) if x.kind == "expensive")
    return f"budget: {{expensive: {max(2, 2 * used)}}}"


def _falling_curve(history: History) -> Iterator[Weakness]:
    """Yield a learning curve that still falls, by a power law through its points."""
    tested = [x for x in generation_facts(history) if x.force_mae and x.expensive > 0]
    numbers = {x.expensive for x in tested}
    if len(numbers) < 3 or tested[-1].generation != history.state.generations.best:
        return
    slope = np.polyfit(
        np.log([x.expensive for x in tested]),
        np.log([x.force_mae or 0.0 for x in tested]),
        1,
    )[0]
    share = float(1.0 - 2.0**slope)
    yield Weakness(
        "The learning curve still falls: by its slope, twice the expensive labels "
        f"would take {share:.0%} off the error on the validation set.",
        _more_labels(history),
        cost=share,
        cost_text=f"about {share:.0%} of the error",
    )


def _stopped_walkers(history: History) -> Iterator[Weakness]:
    found = last_examination(history)
    if found is None or not found.stopped or not found.walkers:
        return
    stopped = sum(found.stopped.values())
    share = stopped / found.walkers
    yield Weakness(
        f"Guards stopped {stopped} of {plural(found.walkers, 'walker')} of the "
        "examination; the frames that they would have reached are in no error.",
        _more_labels(history),
        cost=share,
        cost_text=f"{share:.0%} of the MD is not examined",
    )


def _uncertain_error(history: History) -> Iterator[Weakness]:
    """Yield an examination whose error has a wide error bar (two standard errors)."""
    found = last_examination(history)
    if found is None or found.errors is None or found.frames < 2:
        return
    errors = np.array(list(found.by_frame.values()))
    mean = float(errors.mean())
    if mean <= 0.0:
        return
    share = 2.0 * float(errors.std(ddof=1)) / sqrt(len(errors)) / mean
    if share <= _SURE:
        return
    enough = ceil(len(errors) * (share / _SURE) ** 2 / 10.0) * 10
    yield Weakness(
        f"The error of the examination is {milli_text(found.errors.force_mae)} ± "
        f"{milli_text(share * found.errors.force_mae)} meV/Å (two standard errors), "
        f"since it has {plural(found.frames, 'frame')}.",
        f"validation: {{examination: {min(enough, _MOST_FRAMES)}}}",
        cost=min(share, 1.0),
        cost_text=f"±{share:.0%} of the error",
    )


def _broken_limits(history: History) -> Iterator[Weakness]:
    found = leading_coverage(history)
    if found is not None and not limits_kept(found):
        share = found.coverage - found.held / found.n
        yield Weakness(
            f"Limits of errors were kept by {found.held} of "
            f"{plural(found.n, found.group)}, fewer than the {found.coverage:.0%} "
            "promised.",
            "validation: {frames: 100}\nflag: {control: 0.2}",
            cost=share,
            cost_text=f"{share:.0%} of the frames exceed their limit",
        )
    best = best_generation(history)
    if best is None or best.force_mae is None or newest_limits(history) is not None:
        return
    asked = config_value(history, "flag", "coverage")
    coverage = float(asked) if isinstance(asked, int | float) else 0.9
    needed = needed_frames(coverage)
    if best.test < needed:
        yield Weakness(
            f"No limit of errors is promised: {coverage:.0%} takes {needed} validation "
            f"frames, there are {best.test}.",
            f"validation: {{frames: {needed}}}",
            cost=coverage,
            cost_text="no frame has a limit of its error",
        )


def _failed_labels(history: History) -> Iterator[Weakness]:
    for each in label_totals(history):
        if not each.failed:
            continue
        failure, _ = max(each.failures.items(), key=lambda x: (x[1], x[0].name))
        asked = each.good + each.failed
        share = each.failed / asked
        yield Weakness(
            f"{each.failed} of {asked} {each.kind} labels failed, most by "
            f"{failure_text(failure)}: {failure}.",
            _mend_of_failure(history, failure),
            cost=share,
            cost_text=f"{share:.0%} of the {each.kind} labels",
        )


def _mend_of_failure(history: History, failure: Failure) -> str:
    """Return the YAML that makes such failures rarer, or a comment without any."""
    if failure in _LIMITS:
        key, usual = _LIMITS[failure]
        value = config_value(history, "limits", key)
        limit = 2.0 * float(value if isinstance(value, int | float) else usual)
        return f"limits: {{{key}: {limit:g}}}"
    if failure in _DISTORTED:
        value = config_value(history, "explore", "guards", "force")
        force = 0.5 * float(value if isinstance(value, int | float) else _FORCE)
        return f"explore: {{guards: {{force: {force:g}}}}}"
    if failure.is_transient:
        return "# no key mends this; alloop resume STORE --retry tries again"
    return f"# no key mends this; {failure}"


def _doubtful_labels(history: History) -> Iterator[Weakness]:
    for each in label_qualities(history):
        kept = {
            frame
            for doubt, frames in each.doubts.items()
            if not is_excluded(history, each.fidelity, doubt)
            for frame in frames
        }
        if not kept:
            continue
        share = len(kept) / each.good
        yield Weakness(
            f"{plural(len(kept), f'{each.fidelity} label')} of {each.good} are in "
            f"doubt ({', '.join(map(str, each.doubts))}) and are used all the same.",
            f"levels: {{{each.fidelity}: {{doubts: exclude}}}}",
            cost=share,
            cost_text=f"{share:.0%} of the {each.fidelity} labels",
        )


def _idle_workers(history: History) -> Iterator[Weakness]:
    busy = worker_utilisation(history)
    workers = config_value(history, "cluster", "workers")
    if busy is None or not 0.0 < busy < _BUSY:
        return
    if not isinstance(workers, int) or workers < 2:
        return
    yield Weakness(
        f"The {workers} workers computed {busy:.0%} of the time.",
        f"cluster: {{workers: {max(1, ceil(workers * busy))}}}",
        cost=1.0 - busy,
        cost_text=f"{1.0 - busy:.0%} of the workers' time",
    )
