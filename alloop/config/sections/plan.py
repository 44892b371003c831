"""A whole configuration as frozen, checked sections."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from alloop.config.sections.base import (
    Count,
    Duration,
    LabelCount,
    LabelsOrNone,
    Loose,
    ParallelCount,
    Positive,
    Section,
    Whole,
    by_kind,
    union_tag,
)
from alloop.config.sections.clusters import Cluster, Local
from alloop.config.sections.data import Sampled, Start, Test
from alloop.config.sections.flag import Flag
from alloop.config.sections.levels import Levels
from alloop.config.sections.potentials import NETWORK_SECTIONS, Potential
from alloop.config.sections.training import Training

if TYPE_CHECKING:
    from alloop.md.integrate import Integrator

Timestep: TypeAlias = Annotated[float, Field(gt=0, le=5)]


class Seeds(Section):
    """The first frames, drawn around the minimum of the cheap level."""

    kind: Literal["modes", "rattle"] = Field(
        "modes", description="thermal normal modes, or random displacements"
    )
    cheap: LabelsOrNone | None = Field(
        None, description="cheap labels, all molecules together"
    )
    expensive: LabelCount | None = Field(None, description="expensive labels, likewise")
    temperature: Positive = Field(500.0, description="of the modes, K")
    sigma: Positive = Field(0.05, description="of the rattling, Å")


class Guards(Section):
    """The limits at which a walker stops; null turns a guard off."""

    force: Positive | None = Field(30.0, description="largest force, eV/Å")
    contact: Positive | None = Field(0.6, description="closest, in covalent radii")
    bond: Positive | None = Field(2.0, description="longest bond, in covalent radii")
    heat: Positive | None = Field(10.0, description="temperature, of the thermostat's")
    surprise: Positive | None = Field(None, description="of the threshold")
    back: Count = Field(5, description="steps back to the candidate")


class Moves(Section):
    """The walkers of a round, for any kind of MD."""

    temperature: Positive = Field(500.0, description="of thermostat or start, K")
    timestep: Timestep = Field(0.5, description="MD time step, fs")
    walkers: ParallelCount = Field(16, description="trajectories side by side")
    steps: Count = Field(500, description="MD steps of each walker a round")
    batch: ParallelCount = Field(8, description="walkers that move together")
    piece: Count = Field(500, description="MD steps a task")
    stride: Count = Field(10, description="MD steps between two scored frames")
    compile: bool | Literal["auto"] = Field(
        "auto", description="force calls: on, off, or auto: on from 5000 `steps`"
    )
    guards: Guards = Guards()

    @abstractmethod
    def integrator(self) -> "Integrator":
        """Return the integrator of this section."""


class Langevin(Moves):
    """Langevin dynamics (BAOAB)."""

    kind: Literal["langevin"] = "langevin"
    friction: Positive = Field(0.01, description="1/fs")

    def integrator(self) -> "Integrator":
        """Return the integrator of this section."""
        from alloop.md import integrate

        return integrate.Langevin(self.friction)


class Verlet(Moves):
    """Velocity Verlet: constant energy."""

    kind: Literal["verlet"]

    def integrator(self) -> "Integrator":
        """Return the integrator of this section."""
        from alloop.md import integrate

        return integrate.VelocityVerlet()


Explore: TypeAlias = Annotated[
    Annotated[Langevin, union_tag("langevin")] | Annotated[Verlet, union_tag("verlet")],
    by_kind("langevin"),
]


class Budget(Section):
    """The limits of what the campaign may spend, without the test set."""

    cheap: LabelsOrNone | None = Field(None, description="labels at the cheap level")
    expensive: LabelCount = Field(30, description="labels at the expensive level")
    cpu_hours: Positive | None = Field(None, description="CPU time of all labels, h")


class Stop(Section):
    """Conditions that end a campaign before the budget is spent."""

    target: Positive | None = Field(
        None, description="force error on the frozen set, meV/Å"
    )
    patience: Count | None = Field(None, description="generations without improvement")
    improvement: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="that counts as one, as a share of the error"
    )
    rounds: Count | None = Field(None, description="explorations at most")


class Limits(Section):
    """The limits of one label's time and memory, and of the length of a run."""

    label_time: Positive = Field(3600.0, description="wall time, s")
    label_memory: Positive = Field(8000.0, description="memory, MB")
    isolate: bool = Field(True, description="label in a child process")
    walltime: Duration | None = Field(
        None, description="of one run, such as 24 h; plain number: s"
    )


class Plan(Section):
    """A campaign. Units: eV, Å, fs, K."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")] = Field(
        description="letters, digits, `.`, `_`, `-`"
    )
    seed: Whole = Field(0, description="of all random numbers")
    start: Annotated[tuple[Start, ...], Loose] = Field(
        min_length=1, description="list of molecules and data to begin with"
    )
    test: Test = Field(Sampled(), description="frozen test set")
    levels: Levels = Field(description="the two levels of theory")
    seeds: Seeds = Seeds()
    explore: Explore = Langevin()
    potential: Potential = NETWORK_SECTIONS["painn"]()
    flag: Flag = Flag()
    training: Training | None = Field(
        None, description="asteroid, or standard where there is no cheap level"
    )
    budget: Budget = Budget()
    stop: Stop = Stop()
    cluster: Cluster = Local()
    limits: Limits = Limits()
    store: str | None = Field(
        None, description="where the campaign is kept; runs/NAME.zarr by default"
    )
    cache: str | None = Field(None, description="labels shared with other campaigns")
