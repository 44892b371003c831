"""Indices of a journal: its records, tasks and trainings, its frames and labels. Pure.

The size of the first grows with labels and tasks, not with the frames that MD proposes.
What it lacks (predictions, walkers, the ids of a training set) is read from the records
whose numbers it holds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from alloop.core.dipoles import stack_dipoles
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity, LevelId
from alloop.core.records import Failure, Label, LabelSet, Unlabelled
from alloop.core.seeds import Purpose
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    ModelId,
    Train,
)
from alloop.loop.reducer import ATTEMPTS


@dataclass(slots=True)
class LabelIndex:
    """An index of the journal's frames and labels, built turn by turn with `add_turn`.

    computed: keys of the labels that this campaign computed itself, not those from a
    cache or the user.
    """

    frames: dict[FrameId, Frame] = field(default_factory=dict)
    labels: dict[tuple[LevelId, FrameId], Label | Unlabelled] = field(
        default_factory=dict
    )
    computed: set[tuple[LevelId, FrameId]] = field(default_factory=set)

    def add_turn(self, turn: e.Turn) -> None:
        """Add the frames and labels of a turn."""
        for frame, label in _turn_labels(turn):
            if frame is not None:
                self.frames.setdefault(frame.id, frame)
            if label is not None:
                self.labels[label.level, label.frame] = _detached_label(label)
        if isinstance(turn.event, e.Labelled) and not turn.event.cached:
            self.computed.add((turn.event.label.level, turn.event.label.frame))

    def get(self, level: LevelId, frame: FrameId) -> Label | Unlabelled | None:
        """Return the label or the failure under this key, None without either."""
        return self.labels.get((level, frame))

    def label_set(self, level: LevelId, ids: Iterable[FrameId]) -> LabelSet:
        """Return the labels of these frames at the level, in the order given."""
        frames = [self.frames[frame] for frame in ids]
        answers = [self.labels[level, frame.id] for frame in frames]
        labels = [label for label in answers if isinstance(label, Label)]
        return LabelSet.of(
            frames,
            [x.energy for x in labels],
            [x.forces for x in labels],
            [x.stress for x in labels],
            stack_dipoles([x.details for x in labels]),
        )


def _detached_label(label: Label | Unlabelled) -> Label | Unlabelled:
    """Copy the arrays of a label, so that its record can be freed."""
    if isinstance(label, Unlabelled) or label.forces.base is None:
        return label
    stress = None if label.stress is None else label.stress.copy()
    return replace(label, forces=label.forces.copy(), stress=stress)


def _turn_labels(
    turn: e.Turn,
) -> Iterator[tuple[Frame | None, Label | Unlabelled | None]]:
    match turn.event:
        case e.Labelled(label=label):
            yield None, label
        case e.NotLabelled(unlabelled=unlabelled):
            yield None, unlabelled
        case e.Opened(given=given):
            for item in given:
                yield item.frame, item.label
        case e.Restored(asked=LabelFrame(frame=frame), answer=e.Labelled(label=label)):
            yield frame, label
    yield from ((x.frame, None) for x in turn.commands if isinstance(x, LabelFrame))


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
    def fidelity(self) -> Fidelity:
        """The role of the level: "cheap" or "expensive"."""
        return self.request.fidelity

    @property
    def purpose(self) -> Purpose:
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


@dataclass(frozen=True, slots=True)
class ExplorationRequest:
    """The round and generation of a piece of MD that was requested.

    Both are 0 where no record of the journal requests it.
    """

    round: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ExaminationRequest:
    """An examination that was requested, of the model of a generation.

    steps: MD steps before each frame, 0 where the frames came from another campaign;
    wanted: number of frames; temperatures: of its walkers in K, ascending.
    """

    number: int
    generation: int
    model: ModelId
    steps: int
    wanted: int
    temperatures: tuple[float, ...]


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
    """The result of a label command; cached: it came from a cache."""

    record: Label | Unlabelled
    timing: e.Timing
    cached: bool = False


def label_outcome(event: e.Event, request: LabelFrame) -> LabelOutcome | None:
    """Return the result of the label that the event answers, None without one.

    The loss of the last attempt counts as the failure `Failure.LOST`.
    """
    match event:
        case e.Labelled(label=label, timing=timing, cached=cached):
            return LabelOutcome(label, timing, cached)
        case e.NotLabelled(unlabelled=unlabelled, timing=timing):
            return LabelOutcome(unlabelled, timing)
        case e.TaskLost(attempt=attempt, reason=reason) if attempt >= ATTEMPTS:
            lost = Unlabelled(request.frame.id, request.level, Failure.LOST, reason)
            return LabelOutcome(lost, e.Timing())
        case _:
            return None


@dataclass(slots=True)
class RecordIndex:
    """An index of the journal, built turn by turn with `add_turn`.

    labels: labels and failures in the order of the journal; one that was requested
    again has a second entry. tasks: all other records. trainings: trainings requested.
    rechecked: labels that were computed a second time. open_labels: labels without an
    answer yet, by name. retries: names of lost labels requested again. explorations:
    those requested, by name; round, generation: of the last one. examinations: those
    requested, by number.
    """

    labels: list[LabelEntry] = field(default_factory=list)
    tasks: list[TaskEntry] = field(default_factory=list)
    trainings: list[TrainingRequest] = field(default_factory=list)
    rechecked: list[e.Rechecked] = field(default_factory=list)
    open_labels: dict[str, OpenLabel] = field(default_factory=dict)
    retries: set[str] = field(default_factory=set)
    explorations: dict[str, ExplorationRequest] = field(default_factory=dict)
    examinations: dict[int, ExaminationRequest] = field(default_factory=dict)
    round: int = 0
    generation: int = 0

    def add_turn(self, seq: int, turn: e.Turn, index: LabelIndex) -> None:
        """Add record `seq`, which the label index has already."""
        self._add_event(seq, turn.event, index)
        self._add_commands(seq, turn.commands)

    def exploration(self, name: str) -> ExplorationRequest:
        """Return the request of the exploration of this name."""
        return self.explorations.get(name, ExplorationRequest())

    @property
    def newest_explorer(self) -> int:
        """The newest generation that explored, 0 without one."""
        return max((x.generation for x in self.explorations.values()), default=0)

    def newest_explorations(self) -> list[int]:
        """Return the records of MD on the newest generation that explored, in order."""
        newest = self.newest_explorer
        names = {k for k, x in self.explorations.items() if x.generation == newest}
        return [
            task.seq
            for task in self.tasks
            if task.kind == e.Explored.__name__ and task.name in names
        ]

    def _add_event(self, seq: int, event: e.Event, index: LabelIndex) -> None:
        match event:
            case e.Opened(given=given):
                self.labels += (_given_label(item, seq, index) for item in given)
            case e.Rechecked():
                self.rechecked.append(event)
            case e.Retried(labels=labels):
                self.retries |= {command.name for command in labels}
        label = self.open_labels.get(e.event_name(event))
        outcome = None if label is None else label_outcome(event, label.command)
        if label is not None and outcome is not None:
            del self.open_labels[label.command.name]
            self.labels.append(_answered_label(label, seq, outcome, index))
        if outcome is None or isinstance(event, e.TaskLost):
            self.tasks.append(_task_entry(seq, event))

    def _add_commands(self, seq: int, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Explore(round=round_, generation=generation):
                    request = ExplorationRequest(round_, generation)
                    self.explorations[command.name] = request
                    self.round, self.generation = round_, generation
                case LabelFrame():
                    self._ask(seq, command)
                case Examine(number=number, explorer="md"):
                    before = self.examinations.get(number)
                    self.examinations[number] = _examination_request(command, before)
                case Train():
                    self.trainings.append(_training_request(seq, command))

    def _ask(self, seq: int, command: LabelFrame) -> None:
        again = command.name in self.retries
        question = OpenLabel(command, seq, self.round, self.generation, again)
        self.open_labels.setdefault(command.name, question)


def _training_request(seq: int, command: Train) -> TrainingRequest:
    return TrainingRequest(
        name=command.name,
        seq=seq,
        generation=command.generation,
        cheap=len(command.cheap),
        expensive=len(command.expensive),
        learned=bool(command.cheap),
        heldout=len(command.heldout),
    )


def _examination_request(
    command: Examine, before: ExaminationRequest | None
) -> ExaminationRequest:
    """Return the request of an examination with a further piece of its MD."""
    temperatures = {*(() if before is None else before.temperatures)}
    temperatures |= {
        x.temperature for x in command.walkers if x.temperature is not None
    }
    return ExaminationRequest(
        number=command.number,
        generation=command.generation,
        model=command.model,
        steps=command.steps,
        wanted=command.wanted,
        temperatures=tuple(sorted(temperatures)),
    )


def _task_entry(seq: int, event: e.Event) -> TaskEntry:
    timing = getattr(event, "timing", e.Timing())
    return TaskEntry(seq, type(event).__name__, e.event_name(event), timing)


def _answered_label(
    label: OpenLabel, seq: int, outcome: LabelOutcome, index: LabelIndex
) -> LabelEntry:
    command = label.command
    return LabelEntry(
        request=replace(command, frame=index.frames[command.frame.id]),
        asked=label.seq,
        answered=seq,
        record=_indexed_record(outcome.record, index),
        timing=outcome.timing,
        cached=outcome.cached,
        round=label.round,
        generation=label.generation,
        retry=label.retry,
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
    indexed = index.get(record.level, record.frame)
    same = isinstance(indexed, Label) and indexed.energy == record.energy
    return indexed if same and indexed is not None else record
