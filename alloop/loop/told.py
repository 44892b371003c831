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
    the last exploration and its generation when it was asked for. cached: somebody else
    had paid for it. excluded: taken out by hand since. retry: it was lost before and
    asked for again.
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
    retry: bool = False

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
    retry: bool


def told(history: History) -> tuple[Told, ...]:
    """All labels and failures, in the order in which the journal got them.

    A label that the user brought has purpose "given", or "test"; one that was lost too
    often is told as `Failure.LOST`. One that was asked for again is told again.
    """
    open_: dict[str, _Question] = {}
    retries: set[str] = set()
    round_ = generation = 0
    out: list[Told] = []
    for entry in history.entries:
        out.extend(_told(entry, open_, history.state.excluded))
        if isinstance(entry.turn.event, e.Retried):
            retries |= {command.name for command in entry.turn.event.labels}
        for command in entry.turn.commands:
            match command:
                case e.Explore():
                    round_, generation = command.round, command.generation
                case e.LabelFrame():
                    again = command.name in retries
                    question = _Question(command, entry.seq, round_, generation, again)
                    open_.setdefault(command.name, question)
    return tuple(out)


_Excluded = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How the label command `name` ended; cached: somebody else had paid for it."""

    name: str
    record: Label | Unlabelled
    timing: e.Timing
    cached: bool = False


def outcome(event: e.Event) -> Outcome | None:
    """The end of a label that the event tells of; being lost too often is one too."""
    match event:
        case e.Labelled(name=name, label=label, timing=timing, cached=cached):
            return Outcome(name, label, timing, cached)
        case e.NotLabelled(name=name, unlabelled=unlabelled, timing=timing):
            return Outcome(name, unlabelled, timing)
        case e.TaskLost(name=name) if event.attempt >= ATTEMPTS:
            kind, _, key = name.partition("/")
            level, _, frame = key.partition("/")
            lost = Unlabelled(frame, level, Failure.LOST, event.reason)
            return Outcome(name, lost, e.Timing()) if kind == "label" else None
        case _:
            return None


def _told(
    entry: Entry, open_: dict[str, _Question], excluded: _Excluded
) -> Iterator[Told]:
    if isinstance(entry.turn.event, e.Opened):
        given = entry.turn.event.given
        yield from (_given(item, entry.seq, excluded) for item in given)
    found = outcome(entry.turn.event)
    if found is not None and found.name in open_:
        yield _answer(open_.pop(found.name), entry.seq, found, excluded)


def _answer(question: _Question, seq: int, found: Outcome, excluded: _Excluded) -> Told:
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
        record=found.record,
        timing=found.timing,
        cached=found.cached,
        excluded=_is_out(excluded, command.frame.id, command.fidelity),
        retry=question.retry,
    )


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
