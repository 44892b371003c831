"""An index of the records of a journal: labels, tasks and trainings. Pure.

Its size grows with labels and tasks, not with the frames that MD proposes. What it
lacks (predictions, walkers, the ids of a training set) is read from the records whose
numbers it holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from alloop.core.frame import Frame
from alloop.core.levels import LevelId
from alloop.core.records import Failure, Label, Unlabelled
from alloop.history.label_index import LabelIndex
from alloop.loop import events as e
from alloop.loop.commands import Command, Examine, Explore, LabelFrame, Train
from alloop.loop.reducer import ATTEMPTS


@dataclass(frozen=True, slots=True, eq=False)
class LabelEntry:
    """A request for a label joined with its answer: a label or a failure.

    asked and answered: sequence numbers of the journal records. round and generation:
    the last exploration and its generation when the label was requested. cached: it
    came from a cache, at no cost here. excluded: excluded by hand since. retry: it was
    lost before and requested again.
    """

    request: LabelFrame
    asked: int
    answered: int
    record: Label | Unlabelled
    timing: e.Timing = field(default_factory=e.Timing)
    cached: bool = False
    round: int = 0
    generation: int = 0
    excluded: bool = False
    retry: bool = False

    @property
    def frame(self) -> Frame:
        """The frame that was to be labelled."""
        return self.request.frame

    @property
    def level(self) -> LevelId:
        """The level of the label."""
        return self.request.level

    @property
    def fidelity(self) -> str:
        """The role of the level: "cheap" or "expensive"."""
        return self.request.fidelity

    @property
    def purpose(self) -> str:
        """The purpose that the label was requested for."""
        return self.request.purpose

    @property
    def molecule(self) -> int:
        """The index of the start that the frame belongs to."""
        return self.request.molecule

    @property
    def reason(self) -> str:
        """The reason of the request, for people."""
        return self.request.reason

    @property
    def cpu_seconds(self) -> float:
        """The CPU seconds of the label, for whoever computed it."""
        return self.record.cpu_seconds

    @property
    def is_given(self) -> bool:
        """True if the user supplied the label, so that it was never requested."""
        return self.asked == self.answered


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A record without a label.

    seq: its number. kind: the class name of its event. name: of the command that it
    answers ("" without one). timing: when and where the task ran.
    """

    seq: int
    kind: str
    name: str
    timing: e.Timing


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training that was requested, the number of that record, and its label counts.

    cheap, expensive: training labels. heldout: further cheap labels, which it does not
    learn from. learned: True if it learns from cheap labels at all.
    """

    name: str
    seq: int
    generation: int
    cheap: int
    expensive: int
    learned: bool
    heldout: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class OpenLabel:
    """A label that was requested and is not answered yet."""

    command: LabelFrame
    seq: int
    round: int
    generation: int
    retry: bool


@dataclass(frozen=True, slots=True, eq=False)
class LabelOutcome:
    """The result of the label command `name`; cached: it came from a cache."""

    name: str
    record: Label | Unlabelled
    timing: e.Timing
    cached: bool = False


def label_outcome(event: e.Event) -> LabelOutcome | None:
    """Return the result of a label that the event holds, None without one.

    The loss of the last attempt counts as the failure `Failure.LOST`.
    """
    match event:
        case e.Labelled(name=name, label=label, timing=timing, cached=cached):
            return LabelOutcome(name, label, timing, cached)
        case e.NotLabelled(name=name, unlabelled=unlabelled, timing=timing):
            return LabelOutcome(name, unlabelled, timing)
        case e.TaskLost(name=name) if event.attempt >= ATTEMPTS:
            kind, _, key = name.partition("/")
            level, _, frame = key.partition("/")
            lost = Unlabelled(frame, level, Failure.LOST, event.reason)
            return LabelOutcome(name, lost, e.Timing()) if kind == "label" else None
        case _:
            return None


@dataclass(slots=True)
class RecordIndex:
    """An index of the journal, built turn by turn with `add_turn`.

    labels: labels and failures in the order of the journal; one that was requested
    again has a second entry. tasks: all other records. trainings: trainings requested.
    rechecked: labels that were computed a second time. open_labels: labels without an
    answer yet, by name. retries: names of lost labels requested again. explorers: the
    generation of each exploration requested, by name; round, generation: of the last
    one. examinations: the first request of each, by its number, without walkers.
    """

    labels: list[LabelEntry] = field(default_factory=list)
    tasks: list[TaskEntry] = field(default_factory=list)
    trainings: list[TrainingRequest] = field(default_factory=list)
    rechecked: list[e.Rechecked] = field(default_factory=list)
    open_labels: dict[str, OpenLabel] = field(default_factory=dict)
    retries: set[str] = field(default_factory=set)
    explorers: dict[str, int] = field(default_factory=dict)
    examinations: dict[int, Examine] = field(default_factory=dict)
    round: int = 0
    generation: int = 0

    def add_turn(self, seq: int, turn: e.Turn, index: LabelIndex) -> None:
        """Add record `seq`, which the label index has already."""
        self._add_event(seq, turn.event, index)
        self._add_commands(seq, turn.commands)

    def _add_event(self, seq: int, event: e.Event, index: LabelIndex) -> None:
        match event:
            case e.Opened(given=given):
                self.labels += (_given_label(item, seq, index) for item in given)
            case e.Rechecked():
                self.rechecked.append(event)
            case e.Retried(labels=labels):
                self.retries |= {command.name for command in labels}
        found = label_outcome(event)
        asked = None if found is None else self.open_labels.pop(found.name, None)
        if found is not None and asked is not None:
            self.labels.append(_answered_label(asked, seq, found, index))
        if asked is None or isinstance(event, e.TaskLost):
            self.tasks.append(_task_entry(seq, event))

    def _add_commands(self, seq: int, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Explore(name=name, round=round_, generation=generation):
                    self.explorers[name] = generation
                    self.round, self.generation = round_, generation
                case LabelFrame():
                    self._ask(seq, command)
                case Examine(number=number):
                    asked = replace(command, walkers=())
                    self.examinations.setdefault(number, asked)
                case Train():
                    self.trainings.append(_training_request(seq, command))

    def _ask(self, seq: int, command: LabelFrame) -> None:
        again = command.name in self.retries
        question = OpenLabel(command, seq, self.round, self.generation, again)
        self.open_labels.setdefault(command.name, question)


def _training_request(seq: int, asked: Train) -> TrainingRequest:
    return TrainingRequest(
        name=asked.name,
        seq=seq,
        generation=asked.generation,
        cheap=len(asked.cheap),
        expensive=len(asked.expensive),
        learned=bool(asked.cheap),
        heldout=len(asked.heldout),
    )


def _task_entry(seq: int, event: e.Event) -> TaskEntry:
    name, timing = getattr(event, "name", ""), getattr(event, "timing", e.Timing())
    return TaskEntry(seq, type(event).__name__, name, timing)


def _answered_label(
    asked: OpenLabel, seq: int, found: LabelOutcome, index: LabelIndex
) -> LabelEntry:
    command = asked.command
    return LabelEntry(
        request=replace(command, frame=index.frames[command.frame.id]),
        asked=asked.seq,
        answered=seq,
        record=_indexed_record(found.record, index),
        timing=found.timing,
        cached=found.cached,
        round=asked.round,
        generation=asked.generation,
        retry=asked.retry,
    )


def _given_label(item: e.Given, seq: int, index: LabelIndex) -> LabelEntry:
    request = LabelFrame(
        frame=index.frames[item.frame.id],
        level=item.label.level,
        fidelity=item.fidelity,
        purpose="test" if item.test else "given",
        molecule=item.molecule,
        reason="supplied by the user",
    )
    record = _indexed_record(item.label, index)
    return LabelEntry(request, asked=seq, answered=seq, record=record)


def _indexed_record(
    record: Label | Unlabelled, index: LabelIndex
) -> Label | Unlabelled:
    """Return the label index's copy of a label, so that none is held twice."""
    if isinstance(record, Unlabelled):
        return record
    known = index.get(record.level, record.frame)
    same = isinstance(known, Label) and known.energy == record.energy
    return known if same and known is not None else record
