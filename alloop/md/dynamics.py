"""The settings of a piece of MD."""

from dataclasses import dataclass, field

from alloop.core.errors import InputError
from alloop.md.guards import Guards

_KINDS = ("langevin", "verlet")


@dataclass(frozen=True, slots=True)
class DynamicsSettings:
    """The settings by which walkers move.

    kind: "langevin" or "verlet" (NVE). temperature in K, timestep in fs, friction in
    1/fs. stride: a frame is scored every so many steps. centre: the centre of mass is
    held in NVE and, without a periodic box, in Langevin too, where noise would carry an
    isolated molecule away; False for a potential that depends on the absolute position.
    """

    kind: str = "langevin"
    temperature: float = 300.0
    timestep: float = 0.5
    friction: float = 0.01
    stride: int = 10
    centre: bool = True
    guards: Guards = field(default_factory=Guards)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(
                f"expected dynamics of kind {' or '.join(_KINDS)}, got {self.kind!r}"
            )
        for name in ("timestep", "stride"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"expected a positive {name} of MD, got {getattr(self, name)}"
                )
        for name in ("temperature", "friction"):
            if not getattr(self, name) >= 0.0:
                raise InputError(
                    f"expected {name} of MD not below 0, got {getattr(self, name)}"
                )
