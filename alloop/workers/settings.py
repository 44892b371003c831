"""Settings and data that a worker needs besides the command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alloop.acceptance import AcceptanceSettings
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Explorer, Label, LabelSet, TrainingData
from alloop.core.roles import ExplorerSettings, Trainer
from alloop.core.settings import setting
from alloop.evaluation import TrainedMember
from alloop.labels.child.labeller import Limits
from alloop.loop.events import Timing
from alloop.md.dynamics import DynamicsSettings
from alloop.models.checkpoint import Checkpoint, Storable
from alloop.potentials.devices import Device, on_device
from alloop.potentials.restore import restore_potential
from alloop.refine.settings import TestTimeSettings
from alloop.scores.calibrate import ScorerSettings as ScorerSettings


@dataclass(frozen=True, slots=True)
class FirstFrames:
    """Settings of the first frames of a campaign that starts without data.

    test: MD at the cheap level; temperatures in K: of its walkers in turn.
    """

    test: DynamicsSettings
    temperatures: tuple[float, ...]
    kind: Literal["modes", "rattle"] = setting(
        "modes",
        "source of the first frames: thermal samples of the normal modes, or random "
        "displacements of the minimum",
    )
    temperature: float = setting(
        500.0, "temperature of the sampled normal modes, K", gt=0, le=100_000
    )
    sigma: float = setting(
        0.05, "standard deviation of the random displacements, Å", gt=0
    )
    spacing: int = 20
    strain: float = setting(
        0.0,
        "standard deviation of the random strains of the cells, such as 0.03, so that "
        "labels know more than one volume",
        ge=0,
        le=0.1,
    )


@dataclass(frozen=True, slots=True)
class OwnPotential:
    """A user's own potential: its trainer, and the function that restores a checkpoint.

    Both are sent to the workers, so they must be importable there.
    """

    trainer: Trainer
    restore: Callable[[Checkpoint], Storable]

    def get_trainer(self) -> Trainer:
        """Return the trainer."""
        return self.trainer


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All settings that a worker needs to carry out a command.

    make_trainer: called where a training runs, since a network's trainer imports torch.
    spool: folder where finished long labels are kept until they are committed. device:
    where networks run in MD, training and scoring.
    """

    seed: int
    levels: Mapping[Fidelity, Level]  # by fidelity
    dynamics: DynamicsSettings
    beginning: FirstFrames
    make_trainer: Callable[[], Trainer]
    scoring: ScorerSettings = field(default_factory=ScorerSettings)
    limits: Limits = field(default_factory=Limits)
    isolate: bool = True
    spool: Path | None = None
    restore: Callable[[Checkpoint], Storable] = restore_potential
    compile: bool = False  # the force calls of exploration
    acceptance: AcceptanceSettings | None = None  # checks of each generation
    replay: float = 0.0  # share of replayed frames in the loss of fine-tuning
    refine: TestTimeSettings | None = None  # its seed is the command's
    device: Device = "cpu"
    exchange: bool = False  # of temperatures between walkers, after each piece of MD
    explorers: Mapping[Explorer, ExplorerSettings] = field(default_factory=dict)

    @property
    def trainer(self) -> Trainer:
        """The trainer, made for this call."""
        return self.make_trainer()

    def restore_on_device(self, checkpoint: Checkpoint) -> Storable:
        """Return the potential of a checkpoint, on the device of this worker.

        Raises InputError where there is none.
        """
        return on_device(self.restore(checkpoint), self.device)

    def level(self, level_id: str) -> Level:
        """Return the level with this id."""
        return next(level for level in self.levels.values() if level.id == level_id)


@dataclass(frozen=True, slots=True, eq=False)
class SuppliedFrames:
    """Frames of the user's that a training needs beside the labels of the campaign.

    sets: those of acceptance by name. replay: what fine-tuning goes on learning, with
    or without labels; original: the blob of the model that fine-tuning began with, None
    for a pretrained network.
    """

    sets: Mapping[str, LabelSet] = field(default_factory=dict)
    replay: LabelSet | Batch | None = None
    original: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """The data that a command refers to by id: model blobs, frames, labels.

    ratios: of control frames, see `alloop.scores.error_limits`. Of a training
    that is split: member, the potential to train alone; trained, all that were trained
    apart, and timings, of their tasks. supplied: frames of the user's. known: of an
    examination, the frames of each molecule from which its conformers are found; the
    first is its start.
    """

    model: bytes | None = None
    data: TrainingData | None = None
    test: LabelSet | None = None
    heldout: Batch | None = None
    ratios: tuple[float, ...] = ()
    frame: Frame | None = None
    label: Label | None = None
    member: int | None = None
    trained: tuple[TrainedMember, ...] = ()
    timings: tuple[Timing, ...] = ()
    supplied: SuppliedFrames = field(default_factory=SuppliedFrames)
    known: Mapping[int, tuple[Frame, ...]] = field(default_factory=dict)
