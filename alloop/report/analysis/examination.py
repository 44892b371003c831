"""The examination: errors of a model on frames of its own MD. Pure functions.

The predictions are in the journal before the labels are; no model has learned from the
frames, and nothing was selected by them. In a control campaign they are the frames of
the campaign that it is compared with.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.prediction_errors import ErrorSummary, prediction_errors
from alloop.core.records import Candidate, Label, Predictions, Unlabelled, Walker
from alloop.core.units import Floats
from alloop.history.examination import (
    examination_frames,
    examined_frames,
    last_examined,
)
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    config_value,
    supplied_validation,
)
from alloop.report.analysis.label_quality import barred_doubts
from alloop.report.text.event_text import energy_errors_text
from alloop.report.text.formatting import (
    and_list,
    failure_text,
    guard_stops,
    milli_text,
    plural,
)


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """The outcome of an examination.

    steps: MD steps before each frame, 0 where the frames came from another campaign;
    temperatures in K, ascending. walkers: number of walkers that began; stopped: of
    those that each guard stopped. wanted: frames asked for. missing: frames without a
    label that counts, by the reason; waiting: frames whose label has yet to come.
    errors: over all frames with a label, None without any; by_frame: mean absolute
    error of the forces, eV/Å. alarms: frames above the flag threshold, of the `scored`
    ones.
    """

    number: int
    generation: int
    temperatures: tuple[float, ...]
    steps: int
    wanted: int
    walkers: int
    stopped: Mapping[str, int]
    missing: Mapping[str, int]
    waiting: int
    errors: ErrorSummary | None
    by_frame: Mapping[FrameId, float]
    threshold: float | None
    scored: int
    alarms: int

    @property
    def frames(self) -> int:
        """The number of frames that the errors are taken over."""
        return len(self.by_frame)

    @property
    def kelvin(self) -> str:
        """The temperatures in words, with their unit."""
        return f"{and_list([f'{x:g}' for x in self.temperatures])} K"


def last_examination(history: History) -> Examination | None:
    """Return the last examination of a campaign; None where there is none."""
    asked = history.record_index.examinations
    if not asked:
        return None
    command = asked[max(asked)]
    walkers: dict[int, Walker] = {
        walker.index: walker
        for event in last_examined(history)
        for walker in event.walkers
    }
    frames = examination_frames(history)
    labels, missing, waiting = _examination_labels(history, frames)
    known = [x for x in frames if x.frame.id in labels]
    threshold = next(
        (x.threshold for _, x in history.generations if x.model == command.model), None
    )
    surprise = np.array([x.surprise for x in frames])
    scored = int(np.isfinite(surprise).sum()) if threshold is not None else 0
    return Examination(
        number=command.number,
        generation=command.generation,
        temperatures=command.temperatures,
        steps=command.steps,
        wanted=command.wanted,
        walkers=len(walkers),
        stopped=guard_stops(walkers.values()),
        missing=missing,
        waiting=waiting,
        errors=_error_summary(history, known),
        by_frame={x.frame.id: _force_error(x, labels[x.frame.id]) for x in known},
        threshold=threshold,
        scored=scored,
        alarms=int((surprise > threshold).sum()) if threshold is not None else 0,
    )


def counted_frames(history: History) -> Iterator[tuple[Candidate, Label]]:
    """Yield the frames of the last examination whose label counts, with that label."""
    return examined_frames(history, barred_doubts(history))


def _examination_labels(
    history: History, frames: list[Candidate]
) -> tuple[dict[FrameId, Label], Mapping[str, int], int]:
    """Return labels that count, the reasons why others do not, and those to come."""
    level = history.state.levels["expensive"]
    good = {x.frame.id: label for x, label in counted_frames(history)}
    missing: Counter[str] = Counter()
    waiting = 0
    for frame in (x.frame.id for x in frames if x.frame.id not in good):
        found = history.label_index.get(level, frame)
        if found is None:
            waiting += 1
        elif isinstance(found, Unlabelled):
            missing[failure_text(found.failure)] += 1
        elif history.state.labels.excluded & {(frame, "expensive"), (frame, "all")}:
            missing["excluded by hand"] += 1
        else:
            missing["doubtful"] += 1
    return good, missing, waiting


def _error_summary(history: History, known: list[Candidate]) -> ErrorSummary | None:
    if not known:
        return None
    level = history.state.levels["expensive"]
    labels = history.label_index.label_set(level, [x.frame.id for x in known])
    forces: Floats = np.concatenate([x.forces for x in known])
    return prediction_errors(
        Predictions(np.array([x.energy for x in known]), forces), labels
    )


def _force_error(candidate: Candidate, label: Label) -> float:
    return float(np.abs(candidate.forces - label.forces).mean())


def examination_sentences(history: History) -> Iterator[str]:
    """Yield the results of the last examination in sentences; nothing without one."""
    found = last_examination(history)
    if found is None:
        return
    if found.errors is None:
        yield f"The examination has no error: {_no_error(found)}."
    else:
        yield (
            f"Examination: generation {found.generation} errs by "
            f"{milli_text(found.errors.force_mae)} meV/Å in forces (MAE; RMSE "
            f"{milli_text(found.errors.force_rmse)}) and by "
            f"{energy_text(found.errors)} in "
            f"energies, on {where_measured(found)}, which were used neither for "
            "training nor for selection."
        )
    if found.stopped:
        yield (
            f"{sum(found.stopped.values())} of the {plural(found.walkers, 'walker')} "
            f"of the examination were stopped ({_counts_text(found.stopped)}): frames "
            "beyond that are not in its error."
        )
    elif found.steps:
        yield f"No guard rail stopped one of its {plural(found.walkers, 'walker')}."
    if found.missing and found.errors is not None:
        lost = plural(sum(found.missing.values()), "frame")
        yield f"{lost} of it have no usable label ({_counts_text(found.missing)})."


def energy_text(found: ErrorSummary) -> str:
    """Return the error of energies with and without its mean, in words."""
    return energy_errors_text(found.energy_spread, found.energy_mae)


def where_measured(found: Examination, whose: str = "that model") -> str:
    """Return a description of the frames; whose: the model that ran the MD."""
    frames = plural(found.frames, "frame")
    if found.steps == 0:
        return f"{frames} of MD on the compared campaign's model"
    return f"{frames} of MD on {whose} at {found.kelvin}"


def _no_error(found: Examination) -> str:
    if found.waiting or not (found.missing or found.stopped):
        return f"{found.waiting or found.wanted} frames wait for MD or a label"
    if found.missing:
        return f"no usable label ({_counts_text(found.missing)})"
    return f"guard rails stopped every walker ({_counts_text(found.stopped)})"


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{many} {what}" for what, many in sorted(counts.items()))


def threshold_sentences(history: History) -> Iterator[str]:
    """Yield the basis of the newest flag threshold and its measured alarm rate.

    The rate is the share of frames of MD above the threshold, where it was measured.
    """
    newest = [x for _, x in history.generations if x.threshold is not None]
    if not newest:
        return
    last = newest[-1]
    yield (
        f"The flag threshold of generation {last.generation} is {last.threshold:.3g}, "
        f"which is {threshold_basis(history, last)}."
    )
    found = last_examination(history)
    if found is not None and found.scored:
        yield (
            f"In the examination {found.alarms} of {found.scored} frames of MD "
            f"({found.alarms / found.scored:.0%}) lie above that of generation "
            f"{found.generation}{_nominal_rate(history, last)}."
        )


def threshold_basis(history: History, trained: e.Trained) -> str:
    """Return what a threshold rests on, as a phrase that follows `which is`."""
    count = calibration_frames(history, trained)
    if trained.threshold_from == "error":
        error = config_value(history, "flag", "error")
        return f"where the limit of the error reaches {error} eV/Å"
    if count is None:
        return "not calibrated for MD: the frames that it rests on were not recorded"
    what = _calibration_origin(history, trained)
    needed = _needed_frames(history)
    few = ""
    if needed is not None and count < needed:
        few = (
            f", too few for the quantile {_wanted_quantile(history):g} asked for: the "
            f"largest is quantile {count / (count + 1):.2f}, {needed} are needed"
        )
    if trained.threshold_from == "validation":
        return f"calibrated on {plural(count, 'validation frame')}{what}{few}"
    return f"not calibrated for MD: it rests on {plural(count, 'frame')} {what}{few}"


def calibration_frames(history: History, trained: e.Trained) -> int | None:
    """Return the number of frames that a threshold was taken from, None if unknown."""
    if trained.calibrated_on is not None:
        return trained.calibrated_on
    return _heldout_frames(history, trained) or None


def _heldout_frames(history: History, trained: e.Trained) -> int:
    heldout = {x.name: x.heldout for x in history.record_index.trainings}
    return heldout.get(trained.name, 0)


def _calibration_origin(history: History, trained: e.Trained) -> str:
    if trained.threshold_from == "validation":
        return "" if supplied_validation(history) else " of MD at the cheap level"
    if not _heldout_frames(history, trained):
        return "that the model learned from"
    kind = config_value(history, "seeds", "kind")
    return {"modes": "of normal modes", "rattle": "rattled at random"}.get(
        str(kind or "modes"), "held out from training"
    )


def _wanted_quantile(history: History) -> float | None:
    asked = config_value(history, "flag", "quantile")
    return float(asked) if isinstance(asked, int | float) else None


def _needed_frames(history: History) -> int | None:
    """Return the least number of frames that can give the quantile asked for."""
    asked = _wanted_quantile(history)
    return None if asked is None else int(np.ceil(asked / (1.0 - asked) - 1e-9))


def _nominal_rate(history: History, trained: e.Trained) -> str:
    """Return the promised share of alarms in words, empty with too few frames."""
    count, needed = calibration_frames(history, trained), _needed_frames(history)
    asked = _wanted_quantile(history)
    if asked is None or needed is None or count is None or count < needed:
        return ""
    return f", against a nominal rate of {1.0 - asked:.2g} on frames like its own"
