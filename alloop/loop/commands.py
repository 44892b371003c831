"""Commands: what the loop asks for, as frozen records.

A command's name is the name of its random stream, its provenance and, with `#attempt`,
its key in Dask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity, LevelId
from alloop.core.records import Explorer, MinimumPath, Walker
from alloop.core.seeds import Purpose

ModelId: TypeAlias = str  # 32 hexadecimal digits, of the generation's content
VALIDATION_WALKERS = 1_000_000  # indices of a molecule's, after those that explore


def label_name(level: LevelId, frame: FrameId) -> str:
    """Return the name of the command to label the frame at the level."""
    return f"label/{level}/{frame}"


def explore_name(round_: int, batch: int, piece: int) -> str:
    """Return the name of the command of a piece of MD, and of its event."""
    return f"explore/{round_}/{batch}/{piece}"


def examine_name(number: int, batch: int, piece: int) -> str:
    """Return the name of the command of a piece of an examination, and of its event."""
    return f"examine/{number}/{batch}/{piece}"


def part_name(generation: int, part: str) -> str:
    """Return the name of the command of a short training, and of its event."""
    return f"part/{generation}/{part}"


@dataclass(frozen=True, slots=True, eq=False)
class Prepare:
    """The command to relax a molecule at the cheap level and draw its first frames.

    seeds: the number of frames for training; walkers: the number of starting points for
    the MD of the validation set. conformers: further structures, from which frames and
    starting points are drawn in turn.
    """

    molecule: int
    frame: Frame
    seeds: int
    walkers: int
    conformers: tuple[Frame, ...] = ()

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return f"prepare/{self.molecule}"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The command to run MD at the cheap level from the walker.

    frames: the number of frames that it gives for the validation set.
    """

    walker: Walker
    frames: int

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return f"sample/{self.walker.index}"


@dataclass(frozen=True, slots=True, eq=False)
class LabelFrame:
    """The command to label the frame at the level.

    fidelity: "cheap" or "expensive". purpose: "seed", "test" (the validation set),
    "flagged", "control", "bias", "examination", "beyond". reason: one phrase for
    people.
    """

    frame: Frame
    level: LevelId
    fidelity: Fidelity
    purpose: Purpose
    molecule: int
    reason: str = ""

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return label_name(self.level, self.frame.id)


@dataclass(frozen=True, slots=True, eq=False)
class Explore:
    """The command to move walkers `steps` MD steps on generation `generation`.

    keep: the number of most surprising frames to return; controls: the number of random
    ones, whatever their surprise. explorer: what proposes frames; another one than MD
    makes them of the walkers as they are, or moves copies of them. paths: those that
    earlier rounds found.
    """

    round: int
    piece: int
    batch: int
    generation: int
    model: ModelId
    walkers: tuple[Walker, ...]
    steps: int
    keep: int
    controls: int
    explorer: Explorer = "md"
    paths: tuple[MinimumPath, ...] = ()

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return explore_name(self.round, self.batch, self.piece)


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """The command to train generation `generation` on the labels of these frames.

    Ids are sorted. heldout: frames that no training sees, on which surprise is
    calibrated. refine: frames among `cheap` on whose cheap labels the parent is trained
    at test time, in place of a training; none where there is one. length: factor of the
    training's usual steps. parent_accepted: False if the parent failed a check, so that
    the new generation is checked like a first one.
    """

    generation: int
    cheap: tuple[FrameId, ...]
    expensive: tuple[FrameId, ...]
    test: tuple[FrameId, ...]
    parent: ModelId | None = None
    heldout: tuple[FrameId, ...] = ()
    refine: tuple[FrameId, ...] = ()
    length: float = 1.0
    parent_accepted: bool = True

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return f"train/{self.generation}"


@dataclass(frozen=True, slots=True, eq=False)
class Examine:
    """The command to move walkers on a finished model and return one frame of each.

    The frame is that at the end of the piece, whatever its surprise, with the model's
    predictions, made before any label. number: of the examination, from 1 on; wanted:
    the number of its frames, all batches and pieces together; steps: MD steps of this
    piece, 0 where the frames are given and nothing moves; reason: why the campaign
    ends. equilibration: pieces before the first frame, in which walkers, drawn from all
    conformers known, turn bonds between pieces; 0: they begin where their command says,
    and MD alone moves them. explorer: "shapes" for frames beyond MD, which are made of
    the walkers as they are after the last piece.
    """

    number: int
    batch: int
    piece: int
    generation: int
    model: ModelId
    walkers: tuple[Walker, ...]
    steps: int
    wanted: int
    reason: str
    equilibration: int = 0
    explorer: Explorer = "md"

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return examine_name(self.number, self.batch, self.piece)


@dataclass(frozen=True, slots=True)
class Recheck:
    """The command to make a label again at tighter settings, with the frame rotated.

    The rotation is random. It runs beside a training, and no decision depends on it.
    """

    frame: FrameId
    level: LevelId
    fidelity: Fidelity

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return f"recheck/{self.level}/{self.frame}"


@dataclass(frozen=True, slots=True, eq=False)
class TrainPart:
    """The command to train briefly on a part of the labels, to see what they gain.

    It runs beside a training, from new weights. part: its name, see
    `alloop.loop.level_gains`. Ids are sorted. judged: frames with expensive labels that
    no part learns from, on which errors are compared; share: of a training's steps.
    """

    generation: int
    part: str
    cheap: tuple[FrameId, ...]
    expensive: tuple[FrameId, ...]
    judged: tuple[FrameId, ...]
    share: float

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return part_name(self.generation, self.part)


@dataclass(frozen=True, slots=True)
class Price:
    """The command to fit label costs to all labels made so far."""

    generation: int

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return f"price/{self.generation}"


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """The command to stop, with the reason.

    broken: the campaign did not end as it should and can be resumed.
    """

    reason: str
    broken: bool = False

    @property
    def name(self) -> str:
        """The unique name of the command."""
        return "stop"


Command: TypeAlias = (
    Prepare
    | Sample
    | LabelFrame
    | Explore
    | Train
    | Examine
    | Recheck
    | TrainPart
    | Price
    | Stop
)


def moved_walkers(command: Command) -> tuple[Walker, ...]:
    """Return the walkers that the command moves."""
    match command:
        case Explore(walkers=walkers) | Examine(walkers=walkers):
            return walkers
        case Sample(walker=walker):
            return (walker,)
        case _:
            return ()


def with_walkers(command: Command, walkers: Sequence[Walker]) -> Command:
    """Return the command with others in place of the walkers that it moves."""
    match command:
        case Explore() | Examine():
            return replace(command, walkers=tuple(walkers))
        case Sample():
            return replace(command, walker=walkers[0])
        case _:
            return command
