"""The section of the report on weaknesses, the worst first."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from markupsafe import Markup

from alloop.history.measured_costs import worker_utilisation
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.comparison import compare_controls
from alloop.report.analysis.error_groups import error_groups
from alloop.report.analysis.examination import examination, threshold_sentences
from alloop.report.analysis.label_quality import doubt_policy, label_qualities
from alloop.report.analysis.summary_facts import (
    brought_test,
    generation_facts,
    label_tallies,
    set_name,
)
from alloop.report.analysis.uncertainty import ENOUGH, ErrorPoint, threshold_verdict
from alloop.report.sections.markup import Section, Text, bullet_list, frame_link
from alloop.report.text.formatting import failure_counts, milli_text, plural

_FEW = 50  # fewer test frames than this give a wide error bar


def weakness_section(
    history: History, controls: Mapping[str, History], points: Sequence[ErrorPoint]
) -> Section:
    """Return the section on the largest errors and on the limits of the report."""
    said: list[Text] = [*_worst(history), *_lost(history), *_doubted(history)]
    said += [*_weak_test(history), *_weak_flags(history, points)]
    return Section(
        "weak",
        "What is weak",
        bullet_list([*said, *_weak_run(history, controls)], "weak"),
    )


def _worst(history: History) -> Iterator[Text]:
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


def _lost(history: History) -> Iterator[str]:
    """Yield the number of failed labels of each kind, in words."""
    for each in label_tallies(history):
        if each.failed:
            asked = each.good + each.failed
            yield (
                f"{each.failed} of {asked} {each.kind} labels failed "
                f"({failure_counts(each.failures)}); the frames there are missing."
            )


def _doubted(history: History) -> Iterator[Text]:
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
    frames = len(state.test_frames())
    if frames == 0:
        none = "no error in this report is measured"
        known = "errors by generation are not known"
        what = none if examination(history) is None else known
        yield f"There is no frozen set: {what}."
    elif frames < _FEW:
        yield (
            f"The {set_name(history)} set has n = {plural(frames, 'frame')}: "
            "differences of a few per cent between generations or campaigns are noise."
        )
    trajectories = sum(x.kind == e.Sampled.__name__ for x in history.chronicle.deeds)
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
    found = examination(history)
    if found is None:
        if not brought_test(history):
            yield (
                "There was no final examination: the only error known is that on the "
                "validation set, which steered the campaign."
            )
    elif found.frames < _FEW:
        yield f"The final examination has n = {plural(found.frames, 'frame')}."
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
    yield from threshold_sentences(history)
    said = threshold_verdict(points)
    if said.n < 3 * ENOUGH:
        yield (
            f"Hits and misses rest on {plural(said.n, 'control frame')}; a rate takes "
            f"some {3 * ENOUGH}."
        )


def _weak_run(history: History, controls: Mapping[str, History]) -> Iterator[str]:
    tested = [x for x in generation_facts(history) if x.force_mae is not None]
    if tested and tested[-1].generation != history.state.best:
        yield (
            f"The last generation is worse than generation {history.state.best}, the "
            "best, which is the one that is used."
        )
    if not controls:
        yield "Without controls nothing says that choosing frames paid off."
    for each in compare_controls(history, controls):
        if each.gain <= 0 or not each.certain:
            yield each.sentence
    busy = worker_utilisation(history)
    if busy is not None and isfinite(busy) and busy < 0.8:
        yield f"The workers computed only {busy:.0%} of the time."
