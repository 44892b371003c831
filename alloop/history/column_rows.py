"""Rows of the columns, collected turn by turn from the journal. Pure.

Rows stand in the order of the journal, and a written row never changes: new records
only add rows, so `ColumnRows` can make the rows of a part of the journal alone. The
exception is `walkers`, which holds their current positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from alloop.core import doubts
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import FIDELITIES
from alloop.core.records import Candidate, Detail, Label, Noise, Unlabelled
from alloop.core.seeds import Purpose
from alloop.history.record_index import label_outcome
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, LabelFrame, Train
from alloop.loop.state import LoopState
from alloop.store.record import Array
from alloop.store.schema import (
    PURPOSES,
    RUNGS,
    STATES,
    Table,
    failure_codes,
    id_digits,
    word_codes,
)

_Arrays: TypeAlias = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class LabelRow:
    """A label or a failure, and the purpose it was requested for."""

    row: int
    purpose: Purpose
    record: Label | Unlabelled
    cached: bool


@dataclass(slots=True)
class NewRows:
    """New rows of all tables; the leading int of a tuple is the row of a frame."""

    frames: list[Frame] = field(default_factory=list)
    molecules: list[int] = field(default_factory=list)
    labels: dict[str, list[LabelRow]] = field(default_factory=dict)
    noise: list[tuple[int, str, Noise]] = field(default_factory=list)
    scores: list[tuple[int, Candidate, Explore, float | None]] = field(
        default_factory=list
    )
    selections: list[tuple[int, LabelFrame, int]] = field(default_factory=list)
    generations: list[tuple[e.Trained, Train]] = field(default_factory=list)


def column_tables(rows: NewRows, state: LoopState) -> Mapping[str, Table]:
    """Return the rows of all tables, and the walkers of `state`.

    The column `structure` counts from the first row of the store.
    """
    labels = {x: _label_table(rows.labels.get(x, ())) for x in FIDELITIES}
    return {
        "structures": _structure_table(rows.frames, rows.molecules),
        **{f"labels/{fidelity}": table for fidelity, table in labels.items()},
        "noise": _noise_table(rows.noise),
        "scores": _score_table(rows.scores),
        "selections": _selection_table(rows.selections),
        "walkers": _walker_table(state),
        "generations": _generation_table(rows.generations),
    }


def _structure_table(frames: Sequence[Frame], molecules: Sequence[int]) -> _Arrays:
    batch = pack_frames(frames)
    return {
        "id": id_digits(frame.id for frame in frames),
        **_geometry_columns(batch),
        "cell": batch.cells,
        "pbc": batch.pbc,
        "charge": batch.charges,
        "spin": batch.spins,
        "molecule": _integers(molecules),
    }


def _geometry_columns(batch: Batch) -> _Arrays:
    return {
        "offsets": batch.offsets,
        "numbers": batch.numbers.astype(np.uint8),
        "positions": batch.positions,
    }


def _label_table(labels: Sequence[LabelRow]) -> _Arrays:
    good = [x.record if isinstance(x.record, Label) else None for x in labels]
    failures = [
        None if isinstance(x.record, Label) else x.record.failure for x in labels
    ]
    forces = [np.zeros((0, 3)) if label is None else label.forces for label in good]
    return {
        "structure": _integers([x.row for x in labels]),
        "offsets": _integers(np.cumsum([0, *map(len, forces)])),
        "energy": _floats([None if x is None else x.energy for x in good]),
        "forces": np.concatenate([np.zeros((0, 3)), *forces]),
        "stress": _stresses(good),
        "status": word_codes((STATES[x is None] for x in good), STATES),
        "failure": failure_codes(failures),
        "cpu_seconds": _floats([x.record.cpu_seconds for x in labels]),
        "purpose": word_codes((x.purpose for x in labels), PURPOSES),
        "cached": _booleans([x.cached for x in labels]),
        **_detail_columns([x.record.details for x in labels]),
    }


def _stresses(labels: Sequence[Label | None]) -> Array:
    stresses = [None if label is None else label.stress for label in labels]
    rows = [np.full(6, np.nan) if stress is None else stress for stress in stresses]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _detail_columns(labels: Sequence[Mapping[str, Detail]]) -> _Arrays:
    """Return the columns of the details of labels."""
    keys = ("peak_mb", "gap", "s2", "t1", "internal", "external")
    rungs = (str(details.get("rung") or "") for details in labels)
    doubted = [doubts.doubts_of_details(details) for details in labels]
    return {
        **{
            key: _floats([_finite_number(details.get(key)) for details in labels])
            for key in keys
        },
        "rung": word_codes((x if x in RUNGS else "other" for x in rungs), RUNGS),
        **{
            doubt.name.lower(): _booleans([doubt in x for x in doubted])
            for doubt in doubts.Doubt
        },
    }


def _finite_number(detail: Detail) -> float | None:
    return float(detail) if isinstance(detail, int | float) else None


def _noise_table(rows: Sequence[tuple[int, str, Noise]]) -> _Arrays:
    noises = [noise for _, _, noise in rows]
    return {
        "structure": _integers([row for row, _, _ in rows]),
        "fidelity": word_codes((fidelity for _, fidelity, _ in rows), FIDELITIES),
        "energy": _floats([x.energy for x in noises]),
        "force_rms": _floats([x.force_rms for x in noises]),
        "force_max": _floats([x.force_max for x in noises]),
        "cpu_seconds": _floats([x.cpu_seconds for x in noises]),
        "failure": failure_codes([x.failure for x in noises]),
    }


def _score_table(
    rows: Sequence[tuple[int, Candidate, Explore, float | None]],
) -> _Arrays:
    candidates = [candidate for _, candidate, _, _ in rows]
    return {
        "structure": _integers([row for row, _, _, _ in rows]),
        "generation": _integers([request.generation for _, _, request, _ in rows]),
        "surprise": _floats([x.surprise for x in candidates]),
        "threshold": _floats([threshold for _, _, _, threshold in rows]),
        "energy": _floats([x.energy for x in candidates]),
        "round": _integers([request.round for _, _, request, _ in rows]),
        "walker": _integers([x.walker for x in candidates]),
        "step": _integers([x.step for x in candidates]),
    }


def _selection_table(rows: Sequence[tuple[int, LabelFrame, int]]) -> _Arrays:
    requests = [command for _, command, _ in rows]
    return {
        "structure": _integers([row for row, _, _ in rows]),
        "fidelity": word_codes((x.fidelity for x in requests), FIDELITIES),
        "purpose": word_codes((x.purpose for x in requests), PURPOSES),
        "round": _integers([number for _, _, number in rows]),
    }


def _walker_table(state: LoopState) -> _Arrays:
    walkers = [
        state.exploration.walkers[key] for key in sorted(state.exploration.walkers)
    ]
    batch = pack_frames([walker.frame for walker in walkers])
    return {
        "walker": _integers([walker.index for walker in walkers]),
        "molecule": _integers([walker.molecule for walker in walkers]),
        "step": _integers([walker.step for walker in walkers]),
        "stopped": _booleans([walker.stopped is not None for walker in walkers]),
        **_geometry_columns(batch),
        "cell": batch.cells,
        "pbc": batch.pbc,
        "velocities": np.concatenate(
            [np.zeros((0, 3)), *(x.velocities for x in walkers)]
        ),
    }


def _generation_table(rows: Sequence[tuple[e.Trained, Train]]) -> _Arrays:
    trained = [event for event, _ in rows]
    tests = [x.evaluation for x in trained]
    return {
        "generation": _integers([x.generation for x in trained]),
        "model": id_digits(x.model for x in trained),
        "threshold": _floats([x.threshold for x in trained]),
        "energy_mae": _floats([None if x is None else x.energy_mae for x in tests]),
        "force_mae": _floats([None if x is None else x.force_mae for x in tests]),
        "force_rmse": _floats([None if x is None else x.force_rmse for x in tests]),
        "cheap": _integers([len(request.cheap) for _, request in rows]),
        "expensive": _integers([len(request.expensive) for _, request in rows]),
        "cpu_seconds": _floats([x.timing.cpu_seconds for x in trained]),
    }


def _integers(values: Sequence[int] | Array) -> Array:
    return np.asarray(values, dtype=np.int64)


def _booleans(values: Sequence[bool]) -> Array:
    return np.array(values, dtype=np.bool_)


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if x is None else x for x in values], dtype=np.float64)


class ColumnRows:
    """Rows of all tables of `alloop.store.schema`, collected turn by turn.

    structures: every frame that the journal names, also candidates without a label;
    labels/<fidelity>: labels and failures, one row for each request; noise: labels
    computed a second time; scores: predictions of the models for candidates and control
    frames; selections: labels requested; walkers; generations.

    known: rows of the frames before the first turn, by the bytes of their ids.
    """

    def __init__(self, structures: dict[bytes, int] | None = None) -> None:
        self._known = {} if structures is None else structures
        self._fresh = NewRows()

    def add_turn(self, before: LoopState, turn: e.Turn) -> None:
        """Add a turn; `before` is the state before it."""
        for frame, molecule in _named_frames(turn):
            key = bytes.fromhex(frame.id)
            if key not in self._known:
                self._known[key] = len(self._known)
                self._fresh.frames.append(frame)
                self._fresh.molecules.append(molecule)
        self._add_event(before, turn.event)
        self._add_selections(before, turn.commands)

    def tables(self, state: LoopState) -> Mapping[str, Mapping[str, Array]]:
        """Return the rows of all turns since `clear`, and the walkers of `state`.

        The column `structure` counts from the first row of the store.
        """
        return column_tables(self._fresh, state)

    def clear(self) -> None:
        """Drop the rows, once written; the rows of later turns follow them."""
        self._fresh = NewRows()

    def _add_event(self, before: LoopState, event: e.Event) -> None:
        match event:
            case e.Opened(given=given):
                for item in given:
                    purpose: Purpose = "test" if item.test else "given"
                    row = LabelRow(
                        self._structure_row(item.frame.id), purpose, item.label, False
                    )
                    self._fresh.labels.setdefault(item.fidelity, []).append(row)
            case e.Explored(name=name) if name in before.open:
                self._add_scores(before, event)
            case e.Trained(name=name):
                request = before.open.get(name)
                if isinstance(request, Train):
                    self._fresh.generations.append((event, request))
            case e.Rechecked(noise=noise):
                fidelities = {
                    level: fidelity for fidelity, level in before.levels.items()
                }
                row_ = self._structure_row(noise.frame)
                self._fresh.noise.append((row_, fidelities[noise.level], noise))
            case _:
                self._add_label(before, event)

    def _add_scores(self, before: LoopState, event: e.Explored) -> None:
        request = before.open[event.name]
        assert isinstance(request, Explore)
        judge = before.generations.summaries.get(request.generation)
        threshold = None if judge is None else judge.threshold
        for candidate in (*event.candidates, *event.controls):
            row = self._structure_row(candidate.frame.id)
            self._fresh.scores.append((row, candidate, request, threshold))

    def _add_label(self, before: LoopState, event: e.Event) -> None:
        request = before.open.get(e.event_name(event))
        if not isinstance(request, LabelFrame):
            return
        outcome = label_outcome(event, request)
        if outcome is None:
            return
        row = self._structure_row(request.frame.id)
        label = LabelRow(row, request.purpose, outcome.record, outcome.cached)
        self._fresh.labels.setdefault(request.fidelity, []).append(label)

    def _add_selections(self, before: LoopState, commands: Sequence[Command]) -> None:
        """Add the labels requested for the first time, not lost ones sent again."""
        requests = {x.name: x for x in commands if isinstance(x, LabelFrame)}
        for name, command in requests.items():
            if name not in before.open and name not in before.labels.retries:
                row = self._structure_row(command.frame.id)
                self._fresh.selections.append((row, command, before.exploration.round))

    def _structure_row(self, frame: FrameId) -> int:
        return self._known[bytes.fromhex(frame)]


def _named_frames(turn: e.Turn) -> Iterator[tuple[Frame, int]]:
    match turn.event:
        case e.Opened(given=given):
            yield from ((item.frame, item.molecule) for item in given)
        case e.Explored(candidates=candidates, controls=controls):
            yield from ((x.frame, x.molecule) for x in (*candidates, *controls))
    for command in turn.commands:
        if isinstance(command, LabelFrame):
            yield command.frame, command.molecule
