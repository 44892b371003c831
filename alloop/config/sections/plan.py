"""A whole configuration as frozen, checked sections."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from alloop.acceptance import AcceptanceSettings, SetLimits
from alloop.config.sections.base import (
    Duration,
    LabelCount,
    LabelsOrNone,
    Loose,
    Memory,
    RecordSection,
    Section,
    Whole,
    build_record,
    parse_megabytes,
    setting_key,
)
from alloop.config.sections.clusters import Cluster, Local
from alloop.config.sections.data import Sampled, Start, Units, Validation
from alloop.config.sections.explore import Explore, Langevin
from alloop.config.sections.flag import Flag, LeverageFlag
from alloop.config.sections.levels import Levels
from alloop.config.sections.notify import Notify
from alloop.config.sections.potentials import DEFAULT, NETWORK_SECTIONS, Potential
from alloop.config.sections.training import Training
from alloop.labels.child.process import Limits as LabelLimits
from alloop.loop.rules import Budget as SpendingRules
from alloop.loop.rules import RefineRules, SplitRules, StopRules
from alloop.refine.settings import TestTimeSettings
from alloop.workers.settings import FirstFrames


class CheckedSet(Units):
    """A set of labelled frames that is never trained on, and the limits of its error.

    Labels may be of any level: that of a forgetting set is what the universal model
    learned.
    """

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    error: float | None = setting_key(SetLimits, "error")
    most: float | None = setting_key(SetLimits, "most")


class Acceptance(RecordSection[AcceptanceSettings]):
    """The checks that a generation must pass before MD runs on it.

    One that fails is kept, with its labels, and the last one that passed goes on.
    """

    sets: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], CheckedSet] = Field(
        {},
        description="labelled frames of your own, by a name of your choice, such as "
        "`independent` or `forgetting`",
    )

    def build(self, **others: Any) -> AcceptanceSettings:
        """Return the limits of all checks."""
        sets = [build_record(SetLimits, x, name=name) for name, x in self.sets.items()]
        return super().build(sets=tuple(sets), **others)


class Seeds(Section):
    """The first frames, drawn around the minimum of the cheap level."""

    kind: Literal["modes", "rattle"] = setting_key(FirstFrames, "kind")
    cheap: LabelsOrNone | None = Field(
        None,
        description="first labels at the cheap level, all molecules together; by "
        "default 60, or the budget if it is smaller",
    )
    expensive: LabelCount | None = Field(
        None,
        description="first labels at the expensive level, all molecules together; by "
        "default 10, or the budget if it is smaller",
    )
    temperature: float = setting_key(FirstFrames, "temperature")
    sigma: float = setting_key(FirstFrames, "sigma")
    strain: float = setting_key(FirstFrames, "strain")


class Budget(Section):
    """The limits of what the campaign may spend, without the validation set."""

    cheap: LabelsOrNone | None = Field(
        None,
        description="most labels at the cheap level; by default 200, or 0 without "
        "that level",
    )
    expensive: LabelCount = Field(30, description="most labels at the expensive level")
    cpu_hours: float | None = setting_key(SpendingRules, "cpu_hours")
    split: Literal["fixed", "measured"] = Field(
        "fixed",
        description="whether the counts stand, or move at the same price to the level "
        "whose labels gain more, as short trainings measure it",
    )
    split_every: int = setting_key(SplitRules, "split_every")
    split_steps: float = setting_key(SplitRules, "split_steps")


class Stop(RecordSection[StopRules]):
    """Conditions that end a campaign before the budget is spent."""


class TestTime(Section):
    """Test-time training on the cheap labels of flagged frames, before MD goes on.

    It takes the place of every second training, and is rolled back where the validation
    set gets worse.
    """

    __test__ = False  # no class of tests, whatever its name

    kind: Literal["test-time"]
    frames: int = setting_key(RefineRules, "frames")
    steps: int = setting_key(TestTimeSettings, "steps")
    worse: float = setting_key(TestTimeSettings, "worse")


class Limits(Section):
    """The limits of labels, of the length of a run, of failures and of the disk."""

    label_time: float = setting_key(LabelLimits, "label_time")
    label_memory: float = setting_key(LabelLimits, "label_memory")
    isolate: bool = Field(
        True,
        description="whether labels are made in a child process, which can be "
        "stopped at a limit",
    )
    walltime: Duration | None = Field(
        None,
        description="most wall time of one run, such as 24 h (a plain number is in "
        "s); no limit by default",
    )
    failures: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="share of failures among the last labels of a level, trainings or "
        "pieces of MD of a run, from the tenth on, at which it pauses; `null`: never",
    )
    failure_window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        20, description="number of these last tasks"
    )
    disk: Memory | None = Field(
        None,
        description="most disk space of the store, such as 20 GB (a plain number is in "
        "MB): a round that would exceed it is not begun; no limit by default",
    )
    disk_free: Annotated[float, BeforeValidator(parse_megabytes), Field(ge=0)] = Field(
        200.0,
        description="disk space to leave free where the store lies, such as 2 GB (a "
        "plain number is in MB)",
    )


class Plan(Section):
    """A campaign. Units: eV, Å, fs, K."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")] = Field(
        description="name of the campaign: letters, digits, `.`, `_` and `-`"
    )
    seed: Whole = Field(0, description="seed of all random numbers")
    start: Annotated[tuple[Start, ...], Loose] = Field(
        min_length=1,
        description="list of the molecules and the labelled data that the campaign "
        "begins with",
    )
    validation: Validation = Field(
        Sampled(),
        description="validation set and examination; by default frames of MD "
        "at the cheap level",
    )
    levels: Levels = Field(description="cheap and expensive level of theory")
    seeds: Seeds = Seeds()
    explore: Explore = Langevin()
    potential: Potential = NETWORK_SECTIONS[DEFAULT]()
    flag: Flag = LeverageFlag()
    training: Training | None = Field(
        None,
        description="training of a generation; by default asteroid, or standard "
        "without a cheap level",
    )
    acceptance: Acceptance | None = Field(
        None,
        description="checks that a generation must pass before MD runs on it; `{}` "
        "for the usual ones, none by default",
    )
    refine: TestTime | None = Field(
        None,
        description="refinement of a generation by cheap labels of flagged frames, "
        "before expensive ones are bought; none by default",
    )
    budget: Budget = Budget()
    stop: Stop = Stop()
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu",
        description="where networks run, in MD, training and scoring; auto: on a card "
        "of CUDA where a worker has one",
    )
    cluster: Cluster = Local()
    limits: Limits = Limits()
    notify: Notify | None = Field(
        None,
        description="who is told of the end of a run and of trouble; nobody by default",
    )
    store: str | None = Field(
        None,
        description="folder of the store, relative to this YAML file; by default "
        "runs/NAME.zarr",
    )
    cache: str | None = Field(
        None,
        description="folder of labels shared with other campaigns; none by default",
    )
