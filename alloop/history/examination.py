"""Frames of the examination with their labels, and limits of errors from them."""

from collections.abc import Iterator, Set
from dataclasses import replace

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.doubts import Doubt, doubts_of_details
from alloop.core.error_limits import ErrorLimits
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import Candidate, Explorer, Label, LabelSet
from alloop.core.units import Floats
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.scores.error_limits import fit_error_limits


def examination_frames(history: History, explorer: Explorer = "md") -> list[Candidate]:
    """Return the frames of the last examination, with the predictions made before.

    explorer: "shapes" for those beyond its MD.
    """
    return [x for event in last_examined(history, explorer) for x in event.frames]


def last_examined(history: History, explorer: Explorer = "md") -> list[e.Examined]:
    """Return the pieces of MD of the last examination, or of frames beyond its MD."""
    number = max(history.record_index.examinations, default=0)
    return [
        x
        for _, x in history.of_kind(e.Examined)
        if (x.number, x.explorer) == (number, explorer)
    ]


def examined_frames(
    history: History, barred: Set[Doubt], explorer: Explorer = "md"
) -> Iterator[tuple[Candidate, Label]]:
    """Yield the frames of the last examination whose label counts, with that label.

    barred: the doubts that a label must not have. explorer: "shapes" for those beyond
    its MD.
    """
    level = history.state.levels["expensive"]
    for candidate in examination_frames(history, explorer):
        frame = candidate.frame.id
        label = history.label_index.get(level, frame)
        excluded = {
            (frame, "expensive"),
            (frame, "all"),
        } & history.state.labels.excluded
        if not isinstance(label, Label) or excluded:
            continue
        if not barred & {*doubts_of_details(label.details)}:
            yield candidate, label


def labels_of_test(history: History, trained: e.Trained) -> LabelSet | None:
    """Return the labels that the generation was evaluated on, None without any."""
    test = trained.evaluation
    if test is None or not test.frames:
        return None
    return history.label_index.label_set(
        history.opened.levels["expensive"], test.frames
    )


def force_error(candidate: Candidate, label: Label) -> float:
    """Return the largest force error on an atom, eV/Å."""
    return float(np.linalg.norm(candidate.forces - label.forces, axis=1).max())


def limits_in_force(
    history: History, trained: e.Trained, barred: Set[Doubt]
) -> ErrorLimits | None:
    """Return the limits of errors of a generation, None where it has none.

    They are those of its training, from the validation set. Those of the generation
    that was examined are made again, from the validation set and the frames of the
    examination together: frames of MD on the model itself, at all temperatures.
    """
    limits, labels = trained.error_limits, labels_of_test(history, trained)
    requests = history.record_index.examinations
    examined = bool(requests) and requests[max(requests)].model == trained.model
    pairs = list(examined_frames(history, barred)) if examined else []
    pairs = [x for x in pairs if np.isfinite(x[0].surprise)]
    if limits is None or labels is None or trained.evaluation is None or not pairs:
        return limits
    errors = np.array([force_error(*x) for x in pairs])
    surprise = np.array([x.surprise for x, _ in pairs])
    frames = pack_frames([x.frame for x, _ in pairs])
    said = limits.limits(surprise, frames)
    test = trained.evaluation
    joint = fit_error_limits(
        np.concatenate([test.surprise, surprise]),
        np.concatenate([_test_errors(test, labels), errors]),
        limits.coverage,
        batch=pack_frames([*labels.batch.frames(), *frames.frames()]),
    )
    if joint is None:
        return limits
    return replace(
        joint,
        factor=limits.factor,
        controls=limits.controls,
        examined=len(pairs),
        told=int(np.isfinite(said).sum()),
        held=int((errors <= said)[np.isfinite(said)].sum()),
    )


def _test_errors(test: e.Evaluation, labels: LabelSet) -> Floats:
    return largest_force_errors(labels.batch, test.forces, labels.forces)
