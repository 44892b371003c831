"""The story of each label, as the journal tells it: who asked, when, why, what came."""

from collections.abc import Iterator
from dataclasses import dataclass

from alloop.core.frame import Frame
from alloop.core.levels import LevelId
from alloop.core.records import Failure, Label, Unlabelled
from alloop.loop import events as e
from alloop.loop.history import Entry, History
from alloop.loop.learning import ATTEMPTS


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """A label, or why there is none, with its provenance.

    asked and answered: sequence numbers of the journal records. round and generation:
    those of the loop when it was asked for. cached: somebody else had paid for it.
    excluded: taken out by hand since.
    """

    frame: Frame
    fidelity: str
    level: LevelId
    purpose: str
    molecule: int
    reason: str
    round: int
    generation: int
    asked: int
    answered: int
    record: Label | Unlabelled
    timing: e.Timing
    cached: bool
    excluded: bool

    @property
    def cpu_seconds(self) -> float:
        """What the label cost whoever made it."""
        return self.record.cpu_seconds

    @property
    def brought(self) -> bool:
        """Whether the user brought it, so that it never was asked for."""
        return self.asked == self.answered


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    command: e.LabelFrame
    seq: int
    round: int
    generation: int


def told(history: History) -> tuple[Told, ...]:
    """All labels and failures, in the order in which the journal got them.

    A label that the user brought has purpose "given", or "test"; one that was lost too
    often is told as `Failure.LOST`.
    """
    open_: dict[str, _Question] = {}
    round_ = generation = 0
    out: list[Told] = []
    for entry in history.entries:
        out.extend(_told(entry, open_, history.state.excluded))
        if isinstance(entry.turn.event, e.Trained):
            generation = entry.turn.event.generation
        for command in entry.turn.commands:
            match command:
                case e.Explore():
                    round_ = command.round
                case e.LabelFrame():
                    question = _Question(command, entry.seq, round_, generation)
                    open_.setdefault(command.name, question)
    return tuple(out)


_Excluded = frozenset[tuple[str, str]]


def _told(
    entry: Entry, open_: dict[str, _Question], excluded: _Excluded
) -> Iterator[Told]:
    match entry.turn.event:
        case e.Opened(given=given):
            yield from (_given(item, entry.seq, excluded) for item in given)
        case e.Labelled(name=name, label=label, timing=timing, cached=cached):
            if name in open_:
                yield _answer(
                    open_.pop(name), entry.seq, label, timing, cached, excluded
                )
        case e.NotLabelled(name=name, unlabelled=unlabelled, timing=timing):
            if name in open_:
                yield _answer(
                    open_.pop(name), entry.seq, unlabelled, timing, False, excluded
                )
        case e.TaskLost(name=name, attempt=attempt) if attempt >= ATTEMPTS:
            if name in open_:
                yield _lost(open_.pop(name), entry, excluded)


def _answer(
    question: _Question,
    seq: int,
    record: Label | Unlabelled,
    timing: e.Timing,
    cached: bool,
    excluded: _Excluded,
) -> Told:
    command = question.command
    return Told(
        frame=command.frame,
        fidelity=command.fidelity,
        level=command.level,
        purpose=command.purpose,
        molecule=command.molecule,
        reason=command.reason,
        round=question.round,
        generation=question.generation,
        asked=question.seq,
        answered=seq,
        record=record,
        timing=timing,
        cached=cached,
        excluded=_is_out(excluded, command.frame.id, command.fidelity),
    )


def _lost(question: _Question, entry: Entry, excluded: _Excluded) -> Told:
    event = entry.turn.event
    reason = event.reason if isinstance(event, e.TaskLost) else ""
    command = question.command
    record = Unlabelled(command.frame.id, command.level, Failure.LOST, reason)
    return _answer(question, entry.seq, record, e.Timing(), False, excluded)


def _given(item: e.Given, seq: int, excluded: _Excluded) -> Told:
    return Told(
        frame=item.frame,
        fidelity=item.fidelity,
        level=item.label.level,
        purpose="test" if item.test else "given",
        molecule=item.molecule,
        reason="brought by the user",
        round=0,
        generation=0,
        asked=seq,
        answered=seq,
        record=item.label,
        timing=e.Timing(),
        cached=False,
        excluded=_is_out(excluded, item.frame.id, item.fidelity),
    )


def _is_out(excluded: _Excluded, frame: str, fidelity: str) -> bool:
    return bool(excluded & {(frame, fidelity), (frame, "all")})
