"""Events: what happened, as frozen records.

An event that answers a command has the name of that command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from alloop.core.batch import Batch
from alloop.core.error_limits import ErrorLimits
from alloop.core.frame import Frame, FrameId
from alloop.core.label_cost import Cost
from alloop.core.levels import Fidelity, LevelId
from alloop.core.records import (
    Candidate,
    Detail,
    Explorer,
    Label,
    LabelSet,
    MinimumPath,
    ModelCheck,
    Noise,
    Refinement,
    Unlabelled,
    Walker,
)
from alloop.core.records import Evaluation as Evaluation
from alloop.core.units import Floats
from alloop.loop.commands import (
    Command,
    LabelFrame,
    ModelId,
    examine_name,
    explore_name,
    part_name,
)


@dataclass(frozen=True, slots=True)
class Timing:
    """The start and end (seconds since 1970), CPU seconds and worker of a task."""

    started: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0
    worker: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The start of a new campaign: facts that cannot change in the life of the store.

    start: the molecules; conformers: of each, further structures, or nothing at all;
    given: labels and validation frames that came with the
    configuration; model: generation 0, if the user supplied one; parts: the import path
    of each part that the user supplied from Python, by its role; sets: labelled frames
    by the name of their set of acceptance, which no training sees; replay: frames that
    fine-tuning goes on learning, with or without labels.
    """

    seed: int
    levels: Mapping[Fidelity, LevelId]
    start: tuple[Frame, ...]
    given: tuple["Given", ...] = ()
    model: ModelId | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[str, LabelSet] = field(default_factory=dict)
    replay: LabelSet | Batch | None = None
    conformers: tuple[tuple[Frame, ...], ...] = ()

    def conformers_by_start(self) -> dict[int, tuple[Frame, ...]]:
        """Return the other conformers of each start that has any, by its index."""
        return {index: x for index, x in enumerate(self.conformers) if x}


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A labelled frame that the user supplied, for training or validation."""

    frame: Frame
    molecule: int
    fidelity: Fidelity
    label: Label
    test: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Amended:
    """A change of the configuration (YAML text) between two runs, or a run resumed."""

    config: str
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Forked:
    """The point at which a store, so far a copy of another one, goes on by itself.

    seq: the last record taken from `parent`; generation: the newest one then; config:
    the rules from here on (YAML text).
    """

    parent: str
    seq: int
    generation: int
    config: str


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """Frames of another campaign's examination, used here in place of MD of its own.

    molecules: the start molecule that each frame belongs to.
    """

    frames: tuple[Frame, ...]
    molecules: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The relaxed molecule and frames drawn around it.

    seeds: for training. starts: of the walkers of the validation set.
    """

    name: str
    molecule: int
    minimum: Frame
    seeds: tuple[Frame, ...]
    starts: tuple[Walker, ...]
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Frames of MD at the cheap level."""

    name: str
    molecule: int
    frames: tuple[Frame, ...]
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A label that was made, or found in the cache (`cached`)."""

    name: str
    label: Label
    timing: Timing = Timing()
    cached: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class NotLabelled:
    """A frame that got no label, with the reason; only `Retried` asks for it again."""

    name: str
    unlabelled: Unlabelled
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class Explored:
    """The walkers after a piece of MD, and the frames that they found.

    Another explorer than MD moves no walkers but copies, and returns none.
    """

    round: int
    batch: int
    piece: int
    walkers: tuple[Walker, ...]
    candidates: tuple[Candidate, ...]
    controls: tuple[Candidate, ...]
    scored: int
    timing: Timing = Timing()
    note: str = ""  # proton transfers, and once why force calls are not compiled
    explorer: Explorer = "md"
    paths: tuple[MinimumPath, ...] = ()  # those that the command followed or went past

    @property
    def name(self) -> str:
        """The name of the command that it answers."""
        return explore_name(self.round, self.batch, self.piece)

    def without_walkers(self) -> "Explored":
        """Return the event with its frames only, which is what a round keeps of it."""
        return replace(self, walkers=())


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A new generation: model, scorer and threshold under one id.

    landmarks: (frames, features) mean descriptors of frames it was trained on, which
    new candidates should differ from. threshold_from: "heldout", "validation" or
    "error" (`flag.error`); calibrated_on: the number of frames that it was taken from,
    None where it was not recorded. error_limits: of force errors by surprise, or None.
    checks: those that it had to pass before MD runs on it, see `alloop.acceptance`.
    refinement: of the generation before, where it was refined rather than trained.
    """

    name: str
    generation: int
    model: ModelId
    threshold: float | None
    evaluation: Evaluation | None
    landmarks: Floats
    history: Mapping[str, Detail | list[Detail]] = field(default_factory=dict)
    timing: Timing = Timing()
    calibrated_on: int | None = None
    error_limits: ErrorLimits | None = None
    threshold_from: str = "heldout"
    checks: tuple[ModelCheck, ...] = ()
    refinement: Refinement | None = None

    @property
    def failed_checks(self) -> tuple[ModelCheck, ...]:
        """The checks that it did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def summary(self) -> "Trained":
        """Return the event without evaluation, history and checks.

        It is what exploration and the choice of frames need of a generation.
        """
        return replace(self, evaluation=None, history={}, checks=())


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """The walkers of an examination, and the frames of those that still move.

    explorer: "shapes" where the frames lie beyond MD. conformers: by molecule, the
    number that walkers were drawn from; rotamers: molecule and name of those that
    walkers were seen in; transitions: changes from one to another between the times
    they were looked at, before and after the MD of each piece.
    """

    number: int
    batch: int
    piece: int
    walkers: tuple[Walker, ...]
    frames: tuple[Candidate, ...]
    timing: Timing = Timing()
    explorer: Explorer = "md"
    conformers: tuple[tuple[int, int], ...] = ()
    rotamers: tuple[tuple[int, str], ...] = ()
    transitions: int = 0

    @property
    def name(self) -> str:
        """The name of the command that it answers."""
        return examine_name(self.number, self.batch, self.piece)


@dataclass(frozen=True, slots=True, eq=False)
class Rechecked:
    """The change of a label that was made again."""

    name: str
    noise: Noise
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class PartTrained:
    """The errors after a short training on a part of the labels.

    errors (frames,): of each judged frame, mean absolute force component in eV/Å, or in
    eV where labels are energies alone (see `frame_errors`).
    """

    generation: int
    part: str
    errors: Floats
    timing: Timing = Timing()

    @property
    def name(self) -> str:
        """The name of the command that it answers."""
        return part_name(self.generation, self.part)


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """The costs of labels by level id, the only ones that decisions use.

    They are recorded, since a measured time cannot be reproduced.
    """

    name: str
    costs: Mapping[LevelId, Cost]
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class Retried:
    """A user's request to make lost labels again: time-outs, memory, crashes.

    They are sent once the open step is resolved, and learned by the next training.
    """

    labels: tuple[LabelFrame, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TaskLost:
    """A command that was lost: its worker died or it raised."""

    name: str
    attempt: int
    reason: str
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, eq=False)
class Excluded:
    """The exclusion by hand of a frame, or only of its label at one fidelity."""

    frame: FrameId
    fidelity: Fidelity | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Included:
    """The undoing of an exclusion by hand.

    fidelity: of the label that is included again; None undoes all exclusions of the
    frame.
    """

    frame: FrameId
    fidelity: Fidelity | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """An answer that a repair recovered from a store whose records before it are lost.

    Readers find its label at once; otherwise it has no effect until its command is
    asked again, and then nothing is computed. asked: that command, None where it is
    lost too.
    """

    answer: "Answer | TaskLost"
    asked: Command | None = None


Answer: TypeAlias = (
    Prepared
    | Sampled
    | Labelled
    | NotLabelled
    | Explored
    | Trained
    | Examined
    | Rechecked
    | PartTrained
    | Priced
)
Unasked: TypeAlias = (
    Opened | Amended | Forked | Posed | Excluded | Included | Retried | Restored
)
Event: TypeAlias = Unasked | TaskLost | Answer


def event_name(event: Event) -> str:
    """Return the name of the command that the event answers, "" for none."""
    return "" if isinstance(event, Unasked) else event.name


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One journal record: an event and the commands that were decided because of it."""

    event: Event
    commands: tuple[Command, ...] = ()
