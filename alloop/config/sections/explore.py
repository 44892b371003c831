"""The `explore:` section: walkers, their thermostat and barostat, their guards."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from alloop.config.sections.base import (
    Kelvin,
    Loose,
    RecordSection,
    Section,
    by_kind,
    one_or_several,
    setting_key,
    union_tag,
)
from alloop.core.errors import InputError
from alloop.core.records import Explorer
from alloop.core.roles import ExplorerSettings
from alloop.core.units import GIGAPASCAL
from alloop.loop.rules import ExploreRules, Protocol
from alloop.md.barostat import Barostat as CellBarostat
from alloop.md.biases import (
    MetadynamicsSettings,
    UncertaintySettings,
    VariableChoice,
)
from alloop.md.collective_variables import (
    Angle,
    CollectiveVariable,
    Coordination,
    Distance,
    DistanceDifference,
    Torsion,
)
from alloop.md.dynamics import DynamicsSettings
from alloop.md.guards import Guards as WalkerGuards
from alloop.md.integrate import Integrator, VelocityVerlet
from alloop.md.integrate import Langevin as LangevinIntegrator
from alloop.md.path_explorer import PathExplorerSettings
from alloop.md.shapes import ShapeSettings

# The explorers that have keys in the section of MD, in the order in which they are run.
BESIDE: tuple[Explorer, ...] = ("shapes", "metadynamics", "uncertainty", "paths")

Atom: TypeAlias = Annotated[int, Field(ge=0)]
_VARIABLES: Mapping[str, Callable[[Any], CollectiveVariable]] = {
    "distance": Distance,
    "angle": Angle,
    "torsion": Torsion,
    "difference": DistanceDifference,
}

Temperatures: TypeAlias = Annotated[
    Annotated[Kelvin, union_tag("one")]
    | Annotated[tuple[Kelvin, ...], Loose, Field(min_length=1), union_tag("several")],
    one_or_several(),
]


class Guards(RecordSection[WalkerGuards]):
    """The limits at which a walker stops; null turns a guard off.

    The word `reactive` in place of a mapping turns that on alone.
    """

    @model_validator(mode="before")
    @classmethod
    def _reactive(cls, section: Any) -> Any:
        return {"reactive": True} if section == "reactive" else section


class Barostat(RecordSection[CellBarostat]):
    """Stochastic cell rescaling (Bernetti & Bussi, 2020), with a Metropolis test."""


class Shapes(RecordSection[ShapeSettings]):
    """Shapes that MD rarely reaches, made by turning and stretching bonds."""


class Variable(Section):
    """A collective variable by its atoms, numbered from 0: one key of the five."""

    distance: Annotated[tuple[Atom, Atom], Loose] | None = Field(
        None, description="of two atoms"
    )
    angle: Annotated[tuple[Atom, Atom, Atom], Loose] | None = Field(
        None, description="of three atoms, its vertex at the second one"
    )
    torsion: Annotated[tuple[Atom, Atom, Atom, Atom], Loose] | None = Field(
        None, description="of four atoms about the middle two"
    )
    difference: Annotated[tuple[Atom, Atom, Atom], Loose] | None = Field(
        None, description="distance of the first two less that of the last two"
    )
    coordination: Annotated[tuple[Atom, ...], Loose, Field(min_length=2)] | None = (
        Field(None, description="number of the other atoms near the first one")
    )
    radius: float = Field(
        1.5, gt=0, le=20, description="where such an atom counts one half, Å"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = (*_VARIABLES, "coordination")
        names = [name for name in kinds if getattr(self, name) is not None]
        if len(names) != 1:
            got = ", ".join(names) or "none"
            raise ValueError(f"expected one of {', '.join(kinds)}, got {got}")
        atoms = getattr(self, names[0])
        if len(set(atoms)) < len(atoms):
            raise ValueError(f"expected different atoms, got {list(atoms)}")
        return self

    def build(self) -> CollectiveVariable:
        """Return the variable."""
        if self.coordination is not None:
            return Coordination(self.coordination, self.radius)
        name = next(name for name in _VARIABLES if getattr(self, name) is not None)
        return _VARIABLES[name](getattr(self, name))


Variables: TypeAlias = Annotated[
    Annotated[VariableChoice, union_tag("one")]
    | Annotated[
        tuple[Variable, ...],
        Loose,
        Field(min_length=1, max_length=3),
        union_tag("several"),
    ],
    one_or_several(),
]


class Metadynamics(RecordSection[MetadynamicsSettings]):
    """Copies of the walkers that hills drive over barriers, beside MD."""

    variables: Variables = setting_key(MetadynamicsSettings, "variables")

    def build(self, **others: Any) -> MetadynamicsSettings:
        """Return the record of this section."""
        if isinstance(self.variables, str):
            return super().build(**others)
        named = tuple(variable.build() for variable in self.variables)
        return super().build(variables="torsions", named=named, **others)


class Uncertainty(RecordSection[UncertaintySettings]):
    """Copies of the walkers that surprise drives, beside MD."""


class Paths(RecordSection[PathExplorerSettings]):
    """Reaction paths between minima that shapes lead to, beside MD."""


class Moves(Section):
    """The walkers of a round, for any kind of MD."""

    temperature: Temperatures = Field(
        (500.0, 1000.0),
        description="temperature of the thermostat, or of the first velocities "
        "without one, K; of a list the walkers of a molecule have one each in turn",
    )
    timestep: float = setting_key(DynamicsSettings, "timestep")
    walkers: int = setting_key(ExploreRules, "walkers")
    steps: int = setting_key(ExploreRules, "steps")
    batch: int = setting_key(ExploreRules, "batch")
    piece: int = setting_key(ExploreRules, "piece")
    stride: int = setting_key(DynamicsSettings, "stride")
    protocol: Protocol = setting_key(ExploreRules, "protocol")
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="whether forces are computed by compiled code; auto: from 5000 "
        "`steps` on",
    )
    exchange: bool = Field(
        False,
        description="whether walkers of a molecule exchange their temperatures after "
        "each piece of MD (replica exchange)",
    )
    guards: Guards = Guards()
    shapes: Shapes | None = Field(
        Shapes(), description="shapes that are proposed beside MD's frames; null: none"
    )
    metadynamics: Metadynamics | None = Field(
        None,
        description="biased MD that proposes frames beside those of MD, or null",
    )
    uncertainty: Uncertainty | None = Field(
        None,
        description="MD driven to surprise that proposes frames beside those of MD, or "
        "null",
    )
    paths: Paths | None = Field(
        None,
        description="paths between minima that propose frames beside those of MD, or "
        "null",
    )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures of the walkers, K."""
        kelvin = self.temperature
        return kelvin if isinstance(kelvin, tuple) else (kelvin,)

    @property
    def explorers(self) -> Mapping[Explorer, ExplorerSettings]:
        """The settings of the explorers beside MD."""
        sections = {name: getattr(self, name) for name in BESIDE}
        return {name: x.build() for name, x in sections.items() if x is not None}

    @abstractmethod
    def integrator(self) -> Integrator:
        """Return the integrator of this section."""

    def constant_pressure(self) -> CellBarostat | None:
        """Return the barostat, None for constant cells."""
        return None


class Langevin(Moves):
    """Langevin dynamics (BAOAB)."""

    kind: Literal["langevin"] = "langevin"
    friction: float = setting_key(LangevinIntegrator, "friction")
    pressure: float | None = Field(
        None,
        description="pressure at which cells change, GPa; by default they stay as they "
        "are",
    )
    barostat: Barostat = Barostat()

    def constant_pressure(self) -> CellBarostat | None:
        """Return the barostat, None for constant cells."""
        return (
            None
            if self.pressure is None
            else self.barostat.build(pressure=self.pressure * GIGAPASCAL)
        )

    def integrator(self) -> Integrator:
        """Return the integrator of this section."""
        return LangevinIntegrator(self.friction)


class Verlet(Moves):
    """Velocity Verlet: constant energy."""

    kind: Literal["verlet"]

    def integrator(self) -> Integrator:
        """Return the integrator of this section."""
        return VelocityVerlet()


def explorer_section(value: list[Any]) -> dict[str, Any]:
    """Return a list of explorers as the section of MD, with the others as its keys.

    Those that the list does not name are off. Raises InputError for other lists.
    """
    if not all(isinstance(item, Mapping) for item in value):
        raise InputError("expected explorers, each a mapping with its `kind`")
    kinds = [str(item.get("kind", "langevin")) for item in value]
    if len(set(kinds)) < len(kinds) or sum(x not in BESIDE for x in kinds) > 1:
        raise InputError(
            f"expected MD once and each of {', '.join(BESIDE)} once at most, got "
            f"{', '.join(kinds)}"
        )
    section: dict[str, Any] = dict.fromkeys(BESIDE)
    for kind, item in zip(kinds, value, strict=True):
        rest = {key: x for key, x in item.items() if key != "kind"}
        section |= {kind: rest} if kind in BESIDE else dict(item)
    return section


Explore: TypeAlias = Annotated[
    Annotated[Langevin, union_tag("langevin")] | Annotated[Verlet, union_tag("verlet")],
    by_kind("langevin"),
]
