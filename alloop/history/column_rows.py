"""Rows of the columns, collected turn by turn from the journal. Pure.

Rows stand in the order of the journal, and a written row never changes: new records
only add rows, so `ColumnRows` can make the rows of a part of the journal alone. The
exception is `walkers`, which holds their current positions.
"""

from collections.abc import Iterator, Mapping, Sequence

from alloop.core.frame import Frame, FrameId
from alloop.core.splits import Purpose
from alloop.history.column_tables import LabelRow, NewRows, column_tables
from alloop.history.record_index import label_outcome
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, LabelFrame, Train
from alloop.loop.state import LoopState
from alloop.store.record import Array


class ColumnRows:
    """Rows of all tables of `alloop.store.schema`, collected turn by turn.

    structures: every frame that the journal names, also candidates without a label;
    labels/<fidelity>: labels and failures, one row for each request; noise: labels
    computed a second time; scores: predictions of the models for candidates and control
    frames; selections: labels requested; walkers; generations.

    known: rows of the frames before the first turn, by the bytes of their ids.
    """

    def __init__(self, known: dict[bytes, int] | None = None) -> None:
        self._known = {} if known is None else known
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
                asked = before.open.get(name)
                if isinstance(asked, Train):
                    self._fresh.generations.append((event, asked))
            case e.Rechecked(noise=noise):
                found = {level: fidelity for fidelity, level in before.levels.items()}
                row_ = self._structure_row(noise.frame)
                self._fresh.noise.append((row_, found[noise.level], noise))
            case _:
                self._add_label(before, event)

    def _add_scores(self, before: LoopState, event: e.Explored) -> None:
        asked = before.open[event.name]
        assert isinstance(asked, Explore)
        judge = before.summaries.get(asked.generation)
        threshold = None if judge is None else judge.threshold
        for found in (*event.candidates, *event.controls):
            row = self._structure_row(found.frame.id)
            self._fresh.scores.append((row, found, asked, threshold))

    def _add_label(self, before: LoopState, event: e.Event) -> None:
        asked = before.open.get(e.event_name(event))
        if not isinstance(asked, LabelFrame):
            return
        outcome = label_outcome(event, asked)
        if outcome is None:
            return
        row = self._structure_row(asked.frame.id)
        label = LabelRow(row, asked.purpose, outcome.record, outcome.cached)
        self._fresh.labels.setdefault(asked.fidelity, []).append(label)

    def _add_selections(self, before: LoopState, commands: Sequence[Command]) -> None:
        """Add the labels requested for the first time, not lost ones sent again."""
        asked = {x.name: x for x in commands if isinstance(x, LabelFrame)}
        for name, command in asked.items():
            if name not in before.open and name not in before.retries:
                row = self._structure_row(command.frame.id)
                self._fresh.selections.append((row, command, before.round))

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
