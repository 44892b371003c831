"""Shifts of frames that the user brings from what a model was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.errors import InputError
from alloop.core.roles import Potential
from alloop.jobs.training_set import KnownFrames
from alloop.refine.shifts import (
    SHIFTS,
    Shifts,
    TrainingShifts,
    describe_frames,
    fit_shifts,
)
from alloop.scores.connectivity import RADIUS


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """The shifts of frames, and what they were compared with.

    formulas (frames,): Hill formulas. source: of the forces, "labels" or "model".
    known: atomic numbers of the training set.
    """

    training: TrainingShifts
    shifts: Shifts
    formulas: tuple[str, ...]
    source: str
    known: frozenset[int]

    @property
    def radius(self) -> float:
        """The radius of the graphs, Å."""
        return self.training.connectivity.radius

    def new_elements(self) -> tuple[str, ...]:
        """Return the symbols of elements that no training frame has."""
        numbers = (x.number for x in self.shifts.elements)
        return tuple(chemical_symbol(z) for z in numbers if z not in self.known)

    def frame_facts(self, frame: int) -> dict[str, Any]:
        """Return the shifts of a frame, fit for `json.dumps`."""
        shifts = self.shifts
        values = {
            shift: {
                "value": _or_none(shifts.values.of(shift)[frame]),
                "deviations": _or_none(shifts.deviations[shift][frame]),
                "out": bool(shifts.out[shift][frame]),
            }
            for shift in SHIFTS
        }
        mean = _or_none(shifts.values.from_mean[frame])
        values["connectivity"]["from_mean"] = mean
        return {"frame": frame, "formula": self.formulas[frame], **values}

    def by_distance(self) -> list[int]:
        """Return the frames that are out, the farthest in standard deviations first."""
        far = np.nan_to_num(
            np.stack([self.shifts.deviations[shift] for shift in SHIFTS]), nan=-np.inf
        ).max(axis=0)
        order = np.argsort(-far, kind="stable")
        return [int(i) for i in order if self.shifts.outside[i]]

    def notes(self) -> Iterator[str]:
        """Yield what to keep in mind when reading the numbers, a sentence each."""
        new = self.new_elements()
        if new:
            yield (
                f"no training frame has {', '.join(new)}: frames with it are not "
                "predicted, and count as out by features"
            )
        if self.training.features is None:
            yield "this model has no descriptors of atoms, so that features are unknown"
        if self.training.complete:
            yield (
                f"within {self.radius:g} Å all atoms of each training frame are "
                "neighbours, so that connectivity tells sizes only; choose a smaller "
                f"radius, such as {RADIUS:g} Å"
            )


def diagnose(
    potential: Potential,
    training: KnownFrames,
    frames: KnownFrames,
    radius: float | None = None,
    quantile: float = 0.99,
) -> Diagnosis:
    """Return the shifts of frames from a training set.

    radius: Å, of the graphs, by default the potential's cutoff. quantile: of training
    frames, beyond which a frame is out. Force norms are those of labels where both sets
    have some, else of the potential. Raises InputError for fewer than ten training
    frames and where there are no frames.
    """
    if not len(frames):
        raise InputError("expected frames to compare with the training set, got none")
    labelled = training.forces is not None and frames.forces is not None
    elements = np.unique(training.batch.numbers).tolist()
    described_training, described = (
        describe_frames(potential, x.batch, x.forces if labelled else None, elements)
        for x in (training, frames)
    )
    training_shifts = fit_shifts(
        described_training, graph_radius(potential, radius), quantile
    )
    return Diagnosis(
        training=training_shifts,
        shifts=training_shifts.measure(described),
        formulas=tuple(hill_formula(frame) for frame in frames.batch.frames()),
        source="labels" if labelled else "model",
        known=frozenset(elements),
    )


def graph_radius(potential: Potential, radius: float | None = None) -> float:
    """Return the radius, by default the potential's cutoff or `RADIUS`, Å."""
    return float(getattr(potential, "cutoff", RADIUS)) if radius is None else radius


def shift_counts(shifts: Shifts) -> Mapping[str, int]:
    """Return the number of frames that are out, by shift."""
    return {shift: int(shifts.out[shift].sum()) for shift in SHIFTS}


def deviation_texts(shifts: Shifts, frame: int) -> Sequence[str]:
    """Return the deviations of a frame as text, `–` where there are none."""
    return [_deviation_text(shifts.deviations[shift][frame]) for shift in SHIFTS]


def _deviation_text(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.1f}" if abs(value) < 1000.0 else f"{value:.1e}"


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
