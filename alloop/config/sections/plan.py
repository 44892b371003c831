"""A whole configuration as frozen, checked sections."""

from typing import Annotated, Literal

from pydantic import Field

from alloop.config.sections.acceptance import Acceptance
from alloop.config.sections.base import (
    Count,
    Duration,
    Kelvin,
    LabelCount,
    LabelsOrNone,
    Loose,
    NotNegative,
    Positive,
    Section,
    Whole,
)
from alloop.config.sections.clusters import Cluster, Local
from alloop.config.sections.data import Sampled, Start, Validation
from alloop.config.sections.explore import Explore, Langevin
from alloop.config.sections.flag import Flag, LeverageFlag
from alloop.config.sections.levels import Levels
from alloop.config.sections.potentials import DEFAULT, NETWORK_SECTIONS, Potential
from alloop.config.sections.training import Training


class Seeds(Section):
    """The first frames, drawn around the minimum of the cheap level."""

    kind: Literal["modes", "rattle"] = Field(
        "modes",
        description="source of the first frames: thermal samples of the normal "
        "modes, or random displacements of the minimum",
    )
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
    temperature: Kelvin = Field(
        500.0, description="temperature of the sampled normal modes, K"
    )
    sigma: Positive = Field(
        0.05, description="standard deviation of the random displacements, Å"
    )
    strain: Annotated[float, Field(ge=0, le=0.1)] = Field(
        0.0,
        description="standard deviation of the random strains of the cells, such as "
        "0.03, so that labels know more than one volume",
    )


class Budget(Section):
    """The limits of what the campaign may spend, without the validation set."""

    cheap: LabelsOrNone | None = Field(
        None,
        description="most labels at the cheap level; by default 200, or 0 without "
        "that level",
    )
    expensive: LabelCount = Field(30, description="most labels at the expensive level")
    cpu_hours: Positive | None = Field(
        None, description="most CPU time of all labels, h; no limit by default"
    )
    split: Literal["fixed", "measured"] = Field(
        "fixed",
        description="whether the counts stand, or move at the same price to the level "
        "whose labels gain more, as short trainings measure it",
    )
    split_every: Count = Field(
        1, description="generations between two measurements, with `split: measured`"
    )
    split_steps: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3,
        description="share of a training's steps that each of the five short "
        "trainings takes, with `split: measured`",
    )


class Stop(Section):
    """Conditions that end a campaign before the budget is spent."""

    target: Positive | None = Field(
        None,
        description="force error on the validation set at which the campaign ends, "
        "meV/Å; none by default",
    )
    patience: Count | None = Field(
        None,
        description="generations without improvement after which the campaign ends; "
        "no limit by default",
    )
    improvement: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05,
        description="smallest decrease that counts as an improvement, as a share of "
        "the error",
    )
    rounds: Count | None = Field(
        None, description="most rounds of exploration; no limit by default"
    )


class TestTime(Section):
    """Test-time training on the cheap labels of flagged frames, before MD goes on.

    It takes the place of every second training, and is rolled back where the validation
    set gets worse.
    """

    __test__ = False  # no class of tests, whatever its name

    kind: Literal["test-time"]
    frames: Count = Field(
        10,
        description="flagged frames above the threshold, with a cheap label, that call "
        "for a refinement",
    )
    steps: Count = Field(1500, description="gradient steps on the cheap labels")
    worse: NotNegative = Field(
        0.02,
        description="share by which the force error on the validation set may grow",
    )


class Limits(Section):
    """The limits of one label's time and memory, and of the length of a run."""

    label_time: Positive = Field(3600.0, description="most wall time of a label, s")
    label_memory: Positive = Field(8000.0, description="most memory of a label, MB")
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
    store: str | None = Field(
        None,
        description="folder of the store, relative to this YAML file; by default "
        "runs/NAME.zarr",
    )
    cache: str | None = Field(
        None,
        description="folder of labels shared with other campaigns; none by default",
    )
