"""The examination: errors of a model on frames of its own MD. Pure functions.

The predictions are in the journal before the labels are; no model has learned from the
frames, and nothing was selected by them. In a control campaign they are the frames of
the campaign that it is compared with.

Limits of errors are promised before the labels come, too. Their coverage is that on
the examination and on control frames; validation frames are left out, since the limits
were made from them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from alloop.core.error_limits import ErrorLimits
from alloop.core.frame import FrameId
from alloop.core.prediction_errors import (
    ErrorSummary,
    frame_errors,
    prediction_errors,
)
from alloop.core.records import (
    Candidate,
    Explorer,
    Label,
    LabelSet,
    Predictions,
    Unlabelled,
    Walker,
)
from alloop.core.units import Floats
from alloop.history.examination import (
    examination_frames,
    examined_frames,
    force_error,
    last_examined,
    limits_in_force,
)
from alloop.history.reader import History
from alloop.history.record_index import ExaminationRequest
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    config_number,
    config_value,
    has_forces,
    supplied_validation,
)
from alloop.report.analysis.label_facts import barred_doubts
from alloop.report.text.event_log import errors_text
from alloop.report.text.formatting import (
    and_list,
    failure_text,
    guard_stops,
    milli_text,
    plural,
)
from alloop.scores.error_limits import needed_frames


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """The outcome of an examination.

    steps: MD steps before each frame, 0 where the frames came from another campaign;
    temperatures in K, ascending. walkers: number of walkers that began; stopped: of
    those that each guard stopped. wanted: number of frames requested. missing: frames
    without a label that counts, by the reason; waiting: frames whose label has yet to
    come.
    errors: over all frames with a label, None without any; by_frame: mean absolute
    error of the forces, eV/Å. alarms: frames above the flag threshold, of the `scored`
    ones. motion: where walkers began and what they visited.
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
    motion: "ExaminedMotion"

    @property
    def frames(self) -> int:
        """The number of frames that the errors are taken over."""
        return len(self.by_frame)

    @property
    def kelvin(self) -> str:
        """The temperatures in words, with their unit."""
        return f"{and_list([f'{x:g}' for x in self.temperatures])} K"


@dataclass(frozen=True, slots=True)
class ExaminedMotion:
    """Conformers, rotamers and transitions that an examination visited.

    equilibrated: whether bonds were turned between pieces of MD. conformers: number of
    minima that walkers were drawn from, over all molecules; rotamers: of those visited;
    transitions: changes between them that were seen.
    """

    equilibrated: bool
    conformers: int
    rotamers: int
    transitions: int

    @classmethod
    def of(cls, events: Sequence[e.Examined]) -> "ExaminedMotion":
        """Return that of the pieces of an examination."""
        conformers = {m: count for event in events for m, count in event.conformers}
        visited = {name for event in events for name in event.rotamers}
        return cls(
            equilibrated=bool(visited),
            conformers=sum(conformers.values()),
            rotamers=len(visited),
            transitions=sum(event.transitions for event in events),
        )


@dataclass(frozen=True, slots=True, eq=False)
class BeyondMD:
    """The error on frames beyond MD: bonds turned and stretched at random.

    frames: number of those with a label that counts; missing, waiting: as of the
    examination. errors: None without a label.
    """

    generation: int
    frames: int
    missing: Mapping[str, int]
    waiting: int
    errors: ErrorSummary | None


def beyond_md(history: History) -> BeyondMD | None:
    """Return the error beyond the MD of the last examination; None without frames."""
    request, frames = (
        examination_request(history),
        examination_frames(history, "shapes"),
    )
    if request is None or not frames:
        return None
    labels, missing, waiting = _examination_labels(history, frames, "shapes")
    labelled = [x for x in frames if x.frame.id in labels]
    compared = _compared_frames(history, labelled)
    return BeyondMD(
        generation=request.generation,
        frames=len(labelled),
        missing=missing,
        waiting=waiting,
        errors=prediction_errors(*compared) if compared else None,
    )


def examination_request(history: History) -> ExaminationRequest | None:
    """Return the request of the last examination; None where there is none."""
    requests = history.record_index.examinations
    return requests[max(requests)] if requests else None


def last_examination(history: History) -> Examination | None:
    """Return the last examination of a campaign; None where there is none."""
    request = examination_request(history)
    if request is None:
        return None
    events = last_examined(history)
    walkers: dict[int, Walker] = {
        walker.index: walker for event in events for walker in event.walkers
    }
    frames = examination_frames(history)
    labels, missing, waiting = _examination_labels(history, frames)
    labelled = [x for x in frames if x.frame.id in labels]
    threshold = next(
        (x.threshold for _, x in history.generations if x.model == request.model), None
    )
    compared = _compared_frames(history, labelled)
    surprise = np.array([x.surprise for x in frames])
    scored = int(np.isfinite(surprise).sum()) if threshold is not None else 0
    return Examination(
        number=request.number,
        generation=request.generation,
        temperatures=request.temperatures,
        steps=request.steps,
        wanted=request.wanted,
        walkers=len(walkers),
        stopped=guard_stops(walkers.values()),
        missing=missing,
        waiting=waiting,
        errors=prediction_errors(*compared) if compared else None,
        by_frame={} if compared is None else _errors_by_frame(*compared),
        threshold=threshold,
        scored=scored,
        alarms=int((surprise > threshold).sum()) if threshold is not None else 0,
        motion=ExaminedMotion.of(events),
    )


def counted_frames(
    history: History, explorer: Explorer = "md"
) -> Iterator[tuple[Candidate, Label]]:
    """Yield the frames of the last examination whose label counts, with that label.

    explorer: "shapes" for those beyond its MD.
    """
    return examined_frames(history, barred_doubts(history), explorer)


def _examination_labels(
    history: History, frames: list[Candidate], explorer: Explorer = "md"
) -> tuple[dict[FrameId, Label], Mapping[str, int], int]:
    """Return labels that count, the reasons why others do not, and those to come."""
    level = history.state.levels["expensive"]
    good = {x.frame.id: label for x, label in counted_frames(history, explorer)}
    missing: Counter[str] = Counter()
    waiting = 0
    for frame in (x.frame.id for x in frames if x.frame.id not in good):
        record = history.label_index.get(level, frame)
        if record is None:
            waiting += 1
        elif isinstance(record, Unlabelled):
            missing[failure_text(record.failure)] += 1
        elif history.state.labels.excluded & {(frame, "expensive"), (frame, "all")}:
            missing["excluded by hand"] += 1
        else:
            missing["doubtful"] += 1
    return good, missing, waiting


def _compared_frames(
    history: History, candidates: list[Candidate]
) -> tuple[Predictions, LabelSet] | None:
    """Return what was predicted of labelled candidates, and their labels, if any."""
    if not candidates:
        return None
    level = history.state.levels["expensive"]
    labels = history.label_index.label_set(level, [x.frame.id for x in candidates])
    forces: Floats = np.concatenate([x.forces for x in candidates])
    return Predictions(np.array([x.energy for x in candidates]), forces), labels


def _errors_by_frame(said: Predictions, labels: LabelSet) -> dict[FrameId, float]:
    ids = [frame.id for frame in labels.batch.frames()]
    return dict(zip(ids, frame_errors(said, labels).tolist(), strict=True))


def examination_sentences(history: History) -> Iterator[str]:
    """Yield the results of the last examination in sentences; nothing without one."""
    examination = last_examination(history)
    if examination is None:
        return
    if examination.errors is None:
        yield f"The examination has no error: {_no_error(examination)}."
    else:
        errors = examination.errors
        forces = (errors.force_mae, errors.force_rmse)
        energies = (errors.energy_spread, errors.energy_mae)
        yield (
            f"Examination: generation {examination.generation} errs by "
            f"{errors_text(forces, energies)}, on {where_measured(examination)}, which "
            "were used neither for training nor for selection."
        )
    walkers = plural(examination.walkers, "walker")
    if examination.stopped:
        yield (
            f"{sum(examination.stopped.values())} of the {walkers} of the examination "
            f"were stopped ({_counts_text(examination.stopped)}): frames beyond that "
            "are not in its error."
        )
    elif examination.steps:
        yield f"No guard rail stopped one of its {walkers}."
    if examination.missing and examination.errors is not None:
        lost = plural(sum(examination.missing.values()), "frame")
        reasons = _counts_text(examination.missing)
        yield f"{lost} of it have no usable label ({reasons})."
    yield from _motion_sentences(examination.motion)
    yield from _beyond_sentences(history)


def _motion_sentences(motion: ExaminedMotion) -> Iterator[str]:
    if motion.equilibrated:
        yield (
            f"Its walkers began at {plural(motion.conformers, 'conformer')} known, "
            "drawn by their energies, with bonds turned between pieces of MD; "
            f"{plural(motion.rotamers, 'rotamer')} visited, "
            f"{plural(motion.transitions, 'transition')} seen."
        )


def _beyond_sentences(history: History) -> Iterator[str]:
    beyond = beyond_md(history)
    if beyond is None:
        return
    frames = plural(beyond.frames, "frame")
    if beyond.errors is None:
        waiting = f"{beyond.waiting} wait for a label; " if beyond.waiting else ""
        reasons = _counts_text(beyond.missing) or "none has one yet"
        yield f"Beyond MD there is no error: {waiting}{reasons}."
        return
    lost = sum(beyond.missing.values())
    yield (
        f"Beyond MD, on {frames} with bonds turned and stretched at random, it errs by "
        f"{_beyond_text(beyond.errors)}"
        + (f"; {lost} more have no usable label." if lost else ".")
    )


def _beyond_text(errors: ErrorSummary) -> str:
    if not isfinite(errors.force_mae):
        return f"{milli_text(errors.energy_spread)} meV in energies (MAE)"
    rmse = milli_text(errors.force_rmse)
    return f"{milli_text(errors.force_mae)} meV/Å in forces (MAE; RMSE {rmse})"


def where_measured(examination: Examination, whose: str = "that model") -> str:
    """Return a description of the frames; whose: the model that ran the MD."""
    frames = plural(examination.frames, "frame")
    if examination.steps == 0:
        return f"{frames} of MD on the compared campaign's model"
    return f"{frames} of MD on {whose} at {examination.kelvin}"


def _no_error(examination: Examination) -> str:
    if examination.waiting or not (examination.missing or examination.stopped):
        return (
            f"{examination.waiting or examination.wanted} frames wait for MD or a label"
        )
    if examination.missing:
        return f"no usable label ({_counts_text(examination.missing)})"
    return f"guard rails stopped every walker ({_counts_text(examination.stopped)})"


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
    examination = last_examination(history)
    if examination is not None and examination.scored:
        alarms, scored = examination.alarms, examination.scored
        yield (
            f"In the examination {alarms} of {scored} frames of MD "
            f"({alarms / scored:.0%}) lie above that of generation "
            f"{examination.generation}{_nominal_rate(history, last)}."
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
    quantile = config_number(history, "flag", "quantile")
    needed, shortage = _needed_frames(quantile), ""
    if needed is not None and count < needed:
        shortage = (
            f", too few for the quantile {quantile:g} asked for: the largest is "
            f"quantile {count / (count + 1):.2f}, {needed} are needed"
        )
    if trained.threshold_from == "validation":
        return f"calibrated on {plural(count, 'validation frame')}{what}{shortage}"
    return (
        f"not calibrated for MD: it rests on {plural(count, 'frame')} {what}{shortage}"
    )


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


def _needed_frames(quantile: float | None) -> int | None:
    """Return the smallest number of frames that can give the quantile."""
    if quantile is None:
        return None
    # The largest of n is quantile n / (n + 1); 1e-9: rounding of 0.9 / 0.1 adds none.
    return int(np.ceil(quantile / (1.0 - quantile) - 1e-9))


def _nominal_rate(history: History, trained: e.Trained) -> str:
    """Return the promised share of alarms in words, empty with too few frames."""
    quantile = config_number(history, "flag", "quantile")
    count, needed = calibration_frames(history, trained), _needed_frames(quantile)
    if quantile is None or needed is None or count is None or count < needed:
        return ""
    return f", against a nominal rate of {1.0 - quantile:.2g} on frames like its own"


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
        shortage = "" if self.n >= _FEW else f" (n = {self.n} is too few for a rate)"
        return (
            f"Of {plural(self.n, self.group)} {self.held} erred by less than the limit "
            f"promised before their labels{shortage or self._rate}."
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
    """Return the newest generation that has limits of its errors, and the limits.

    A generation whose limits include its own examination, the last one, goes before.
    """
    limited = [x for _, x in history.generations if x.error_limits is not None]
    examined = [x for x in limited if x.model == _examined_model(history)]
    barred = barred_doubts(history)
    for event in (*examined, *reversed(limited)):
        limits = limits_in_force(history, event, barred)
        if limits is not None and (limits.examined or event not in examined):
            return event, limits
    return None


def _examined_model(history: History) -> str | None:
    request = examination_request(history)
    return None if request is None else request.model


def limit_coverages(history: History) -> tuple[LimitCoverage, ...]:
    """Return the coverage of control frames and of the examination, if known."""
    newest = newest_limits(history)
    if newest is None:
        return ()
    coverage = newest[1].coverage
    controls = [
        x.limit_held for x in history.state.labels.entries() if x.limit_held is not None
    ]
    groups = {
        "control frame": controls,
        "frame of the examination": _examination_holds(history),
    }
    return tuple(
        LimitCoverage(group, coverage, len(held), sum(held))
        for group, held in groups.items()
        if held
    )


def _examination_holds(history: History) -> list[bool]:
    model = _examined_model(history)
    limits = next(
        (x.error_limits for _, x in history.generations if x.model == model), None
    )
    if limits is None:
        return []
    return [
        force_error(candidate, label) <= limit
        for candidate, label in counted_frames(history)
        if np.isfinite(limit := limits.limit(candidate.surprise, candidate.frame))
    ]


def limit_sentences(history: History) -> Iterator[str]:
    """Yield the newest limits, the frames behind them and how often they held."""
    newest = newest_limits(history)
    if newest is None:
        yield from _missing_limits(history)
        return
    trained, limits = newest
    median = milli_text(limits.limit(limits.centre))
    yield (
        f"Generation {trained.generation} promises limits of force errors that hold "
        f"for {limits.coverage:.0%} of frames like those that they were made from, "
        f"{_limit_origin(limits)}: {median} meV/Å at the median surprise, and none "
        "where surprise or a bond length lies beyond all of theirs."
    )
    for group in limit_coverages(history):
        yield group.sentence


def calibration_sentences(history: History) -> Iterator[str]:
    """Yield the basis of the newest threshold, and of the limits of errors."""
    yield from threshold_sentences(history)
    yield from limit_sentences(history)


def _limit_origin(limits: ErrorLimits) -> str:
    parts = [plural(limits.frames - limits.examined, "validation frame")]
    if limits.examined:
        parts.append(f"{limits.examined} of the examination")
    if limits.controls:
        raised = limits.factor > 1.0
        by = f" (which raise them by {limits.factor:.2g})" if raised else ""
        parts.append(f"{plural(limits.controls, 'control frame')} of MD{by}")
    return and_list(parts)


def promised_coverage(history: History) -> float:
    """Return the share of errors that limits are to hold for, 0.9 by default."""
    coverage = config_number(history, "flag", "coverage")
    return 0.9 if coverage is None else coverage


def _missing_limits(history: History) -> Iterator[str]:
    tested = [x.evaluation for _, x in history.generations if x.evaluation is not None]
    if not history.generations:
        return
    if not has_forces(history):
        yield "There are no limits of errors: the expensive level has no forces."
        return
    count = len(tested[-1].frames) if tested else 0
    coverage = promised_coverage(history)
    needed = needed_frames(coverage)
    if count < needed:
        yield (
            f"There are no limits of force errors: a promise of {coverage:.0%} takes "
            f"{needed} validation frames, there are {count}."
        )
