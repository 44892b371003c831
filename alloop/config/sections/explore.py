"""The `explore:` section: walkers, their thermostat and barostat, their guards."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from alloop.config.sections.base import (
    Count,
    Kelvin,
    Loose,
    ParallelCount,
    Positive,
    RecordSection,
    Section,
    by_kind,
    one_or_several,
    union_tag,
)
from alloop.core.units import GIGAPASCAL
from alloop.md import guards

if TYPE_CHECKING:
    from alloop.md.barostat import Barostat as CellBarostat
    from alloop.md.integrate import Integrator

Timestep: TypeAlias = Annotated[float, Field(gt=0, le=5)]
Temperatures: TypeAlias = Annotated[
    Annotated[Kelvin, union_tag("one")]
    | Annotated[tuple[Kelvin, ...], Loose, Field(min_length=1), union_tag("several")],
    one_or_several(),
]


class Guards(RecordSection[guards.Guards]):
    """The limits at which a walker stops; null turns a guard off."""


class Barostat(Section):
    """Stochastic cell rescaling (Bernetti & Bussi, 2020), with a Metropolis test."""

    time: Positive = Field(
        500.0,
        description="relaxation time of the volume of a material with this "
        "`compressibility`, fs",
    )
    compressibility: Positive = Field(
        0.02, description="estimate of the material's compressibility, 1/GPa"
    )
    interval: Count = Field(
        10,
        description="MD steps between two changes of the cell, each of which takes a "
        "force call more",
    )
    cell: Literal["isotropic", "anisotropic"] = Field(
        "isotropic",
        description="whether the cell keeps its shape, or changes it too, for crystals",
    )

    def build(self, pressure: float) -> "CellBarostat":
        """Return the barostat at a pressure in GPa."""
        from alloop.md import barostat

        return barostat.Barostat(
            pressure=pressure * GIGAPASCAL,
            time=self.time,
            compressibility=self.compressibility / GIGAPASCAL,
            interval=self.interval,
            shape=self.cell,
        )


class Moves(Section):
    """The walkers of a round, for any kind of MD."""

    temperature: Temperatures = Field(
        (500.0, 1000.0),
        description="temperature of the thermostat, or of the first velocities "
        "without one, K; of a list the walkers of a molecule have one each in turn",
    )
    timestep: Timestep = Field(0.5, description="time step of MD, fs")
    walkers: ParallelCount = Field(
        16, description="number of MD trajectories, all molecules together"
    )
    steps: Count = Field(500, description="MD steps of each walker in a round")
    batch: ParallelCount = Field(8, description="walkers that one task moves together")
    piece: Count = Field(500, description="most MD steps of one task")
    stride: Count = Field(10, description="MD steps between two frames that are scored")
    protocol: Literal["periodic", "naive", "non-periodic"] = Field(
        "periodic",
        description="model and start of a round: the newest model, where walkers go "
        "on; the first model, where they start anew; the first model, where they go on",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="whether forces are computed by compiled code; auto: from 5000 "
        "`steps` on",
    )
    guards: Guards = Guards()

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures of the walkers, K."""
        kelvin = self.temperature
        return kelvin if isinstance(kelvin, tuple) else (kelvin,)

    @abstractmethod
    def integrator(self) -> "Integrator":
        """Return the integrator of this section."""

    def constant_pressure(self) -> "CellBarostat | None":
        """Return the barostat, None for constant cells."""
        return None


class Langevin(Moves):
    """Langevin dynamics (BAOAB)."""

    kind: Literal["langevin"] = "langevin"
    friction: Positive = Field(0.01, description="friction of the thermostat, 1/fs")
    pressure: float | None = Field(
        None,
        description="pressure at which cells change, GPa; by default they stay as they "
        "are",
    )
    barostat: Barostat = Barostat()

    def constant_pressure(self) -> "CellBarostat | None":
        """Return the barostat, None for constant cells."""
        return None if self.pressure is None else self.barostat.build(self.pressure)

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
