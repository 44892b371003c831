"""Top of the report: errors, weaknesses, failures and cost in short."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from markupsafe import Markup

from alloop.history.measured_costs import cpu_seconds_by_part, worker_utilisation
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    best_generation,
    generation_facts,
    level_title,
    supplied_validation,
    validation_origin,
)
from alloop.report.analysis.comparison import TITLES, compare_controls
from alloop.report.analysis.examination import examination_sentences, last_examination
from alloop.report.analysis.label_facts import label_totals
from alloop.report.analysis.label_quality import doubt_policy, label_qualities
from alloop.report.analysis.level_split import split_sentences
from alloop.report.analysis.limit_coverage import calibration_sentences
from alloop.report.analysis.model_errors import ErrorGroups, GroupError, error_groups
from alloop.report.analysis.refinements import refinement_sentences
from alloop.report.analysis.uncertainty import ENOUGH, ErrorPoint, threshold_verdict
from alloop.report.sections.markup import Section, Text, bullet_list, frame_link
from alloop.report.text.event_text import energy_errors_text
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)


def verdict_lines(
    history: History, controls: Mapping[str, History]
) -> Iterator[tuple[str, Text]]:
    """Yield names and texts, one line each."""
    yield "Error", _error_text(history)
    found = error_groups(history)
    if found is not None:
        yield "Weakest", _weakest_text(found)
    yield "Doubts", _doubt_text(history)
    yield "Failures", _failure_text(history)
    compared = [_control_text(history, name, each) for name, each in controls.items()]
    if any(compared):
        parts = and_list(filter(None, compared))
        yield "Controls", f"{parts[0].upper()}{parts[1:]}."
    yield "Cost", " ".join((_cost_text(history), *split_sentences(history)))
    if refined := refinement_sentences(history):
        yield "Refinement", " ".join(refined)


def _error_text(history: History) -> str:
    last, examined = best_generation(history), list(examination_sentences(history))
    if last is None:
        return "Not known: there is no generation yet."
    found = [*examined, _validation_set_text(history, last)]
    return " ".join(found[::-1] if supplied_validation(history) else found)


def _validation_set_text(history: History, last: GenerationFacts) -> str:
    if last.force_mae is None:
        return (
            f"Not known on a validation set: generation {last.generation} was not "
            "tested, since there is none."
        )
    return (
        f"Forces {milli_text(last.force_mae)} meV/Å (MAE; RMSE "
        f"{milli_text(last.force_rmse)}), "
        f"energies {energy_errors_text(last.energy_mae, last.energy_absolute)}, "
        f"against {level_title(history, 'expensive')} on n = "
        f"{plural(last.test, 'frame')} "
        f"{validation_origin(history)} (the validation set), by "
        f"generation {last.generation}."
    )


def _weakest_text(found: ErrorGroups) -> Text:
    worst = [
        _worst_group(kind)
        for kind in (found.molecules, found.elements)
        if len(kind) > 1  # a single one cannot be the worst
    ]
    frame = max(found.molecules, key=lambda x: x.largest)
    link = Markup("{} meV/Å on one atom of frame {}").format(
        milli_text(frame.largest), frame_link(frame.worst)
    )
    return Markup("; ").join([*worst, link]) + f", in {found.where}."


def _worst_group(kind: tuple[GroupError, ...]) -> str:
    return f"{kind[0].name}, {milli_text(kind[0].mae)} meV/Å (n = {kind[0].count})"


def _doubt_text(history: History) -> str:
    parts = [
        f"{plural(len(frames), f'{each.fidelity} label')} {doubt}"
        for each in label_qualities(history)
        for doubt, frames in each.doubts.items()
    ]
    return "; ".join(parts) + "." if parts else "No label is in doubt."


def _failure_text(history: History) -> str:
    lost = [each for each in label_totals(history) if each.failed]
    parts = (
        f"{each.failed} of {each.good + each.failed} {each.kind} labels "
        f"({failure_counts(each.failures)})"
        for each in lost
    )
    return f"{and_list(parts)}." if lost else "No label failed."


def _control_text(history: History, name: str, control: History) -> str:
    who = TITLES.get(name, name)
    found = compare_controls(history, {name: control})
    if not found:
        return ""
    (each,) = found
    verb = "better than" if each.gain > 0 else "worse than"
    doubt = "" if each.certain else ", within the noise"
    lead = each.pairs[0]
    errors = (
        f"{milli_text(lead.ours)} against {milli_text(lead.theirs)} meV/Å on "
        f"{lead.where}"
    )
    return f"{verb} {who} at equal label cost ({errors}{doubt})"


def _cost_text(history: History) -> str:
    parts = {
        part: spent for part, spent in cpu_seconds_by_part(history).items() if spent > 0
    }
    if not parts:
        return "Nothing has been computed yet."
    total = sum(parts.values())
    spent_text = and_list(
        f"{part} {duration_text(spent)}" for part, spent in parts.items()
    )
    return f"{total:.4g} CPU seconds ({duration_text(total)}): {spent_text}."


_FEW = 50  # fewer validation frames than this give a wide error bar


def weakness_section(
    history: History, controls: Mapping[str, History], points: Sequence[ErrorPoint]
) -> Section:
    """Return the section on the largest errors and on the limits of the report."""
    lines: list[Text] = [
        *_largest_errors(history),
        *_failed_labels(history),
        *_doubtful_labels(history),
    ]
    lines += [*_weak_test(history), *_weak_flags(history, points)]
    return Section(
        "weak",
        "Weaknesses",
        bullet_list([*lines, *_weak_run(history, controls)], "weak"),
    )


def _largest_errors(history: History) -> Iterator[Text]:
    """Yield the molecule, the element and the frame with the largest errors."""
    found = error_groups(history)
    if found is None:
        return
    for kind, noun in ((found.molecules, "frame"), (found.elements, "atom")):
        if len(kind) > 1:
            worst, best = kind[0], kind[-1]
            yield (
                f"Forces are worst on {worst.name}: {milli_text(worst.mae)} meV/Å "
                "(MAE, n = "
                f"{plural(worst.count, noun)} of {found.where}), best on {best.name}: "
                f"{milli_text(best.mae)} (n = {best.count})."
            )
    worst = max(found.molecules, key=lambda x: x.largest)
    text = "The worst of {} frames of {} is {}: {} meV/Å off on one of its atoms."
    link = frame_link(worst.worst)
    yield Markup(text).format(
        found.frames, found.where, link, milli_text(worst.largest)
    )


def _failed_labels(history: History) -> Iterator[str]:
    """Yield the number of failed labels of each kind, in words."""
    for each in label_totals(history):
        if each.failed:
            asked = each.good + each.failed
            yield (
                f"{each.failed} of {asked} {each.kind} labels failed "
                f"({failure_counts(each.failures)}); those frames are missing."
            )


def _doubtful_labels(history: History) -> Iterator[Text]:
    """Yield the labels with doubts, in words."""
    for each in label_qualities(history):
        for doubt, frames in each.doubts.items():
            text = "{} in doubt, {}: {}; for example {}."
            yield Markup(text).format(
                plural(len(frames), f"{each.fidelity} label"),
                doubt_policy(history, each.fidelity, doubt),
                doubt,
                frame_link(frames[0]),
            )


def _weak_test(history: History) -> Iterator[str]:
    state = history.state
    frames = len(state.validation_frames())
    if frames == 0:
        none = "no error in this report is measured"
        known = "errors by generation are not known"
        what = none if last_examination(history) is None else known
        yield f"There is no validation set: {what}."
    elif frames < _FEW:
        yield (
            f"The validation set has n = {plural(frames, 'frame')}: "
            "differences of a few per cent between generations or campaigns are noise."
        )
    trajectories = sum(x.kind == e.Sampled.__name__ for x in history.record_index.tasks)
    if trajectories:
        yield (
            f"Frames of the validation set come from {trajectories} runs of MD at the "
            "cheap level and at one temperature; errors farther out, such as "
            "at broken bonds, are not measured."
        )
    yield from _weak_examination(history)
    yield (
        f"One seed ({history.opened.seed}): how much the outcome varies from seed to "
        "seed is not known."
    )


def _weak_examination(history: History) -> Iterator[str]:
    found = last_examination(history)
    if found is None:
        if not supplied_validation(history):
            yield (
                "There was no examination: the only error known is that on the "
                "validation set, which steered the campaign."
            )
    elif found.frames < _FEW:
        yield f"The examination has n = {plural(found.frames, 'frame')}."
    if found is not None and found.stopped:
        yield (
            f"{sum(found.stopped.values())} of {plural(found.walkers, 'walker')} of "
            "the examination were stopped; what lies beyond is in no error."
        )


def _weak_flags(history: History, points: Sequence[ErrorPoint]) -> Iterator[str]:
    bare = [x.generation for _, x in history.generations if x.threshold is None]
    if bare:
        yield (
            f"The flag threshold of {plural(len(bare), 'generation')} is not "
            "calibrated: too few frames were held out."
        )
    yield from calibration_sentences(history)
    outcome = threshold_verdict(points)
    if outcome.n < 3 * ENOUGH:
        yield (
            f"Hits and misses rest on {plural(outcome.n, 'control frame')}; a "
            f"reliable rate needs about {3 * ENOUGH}."
        )


def _weak_run(history: History, controls: Mapping[str, History]) -> Iterator[str]:
    tested = [x for x in generation_facts(history) if x.force_mae is not None]
    if tested and tested[-1].generation != history.state.best:
        yield (
            f"The last generation is worse than generation {history.state.best}, the "
            "best, which is the one that is used."
        )
    if not controls:
        yield "No control was run: the benefit of selecting frames is not measured."
    for each in compare_controls(history, controls):
        if each.gain <= 0 or not each.certain:
            yield each.sentence
    busy = worker_utilisation(history)
    if busy is not None and isfinite(busy) and busy < 0.8:
        yield f"The workers computed only {busy:.0%} of the time."
