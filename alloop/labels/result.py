"""What a program hands back for one frame: a result, or a refusal with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from alloop.core.frame import Frame
from alloop.core.records import Detail, Failure
from alloop.core.units import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Energy in eV, forces (atoms, 3) in eV/Å, columns worth keeping, and the stress of
    a cell (6,) in eV/Å³, in Voigt's order and with ASE's sign."""

    energy: float
    forces: Floats
    details: Mapping[str, Detail] = field(default_factory=dict)
    stress: Floats | None = None


class Refused(Exception):
    """No label, for a reason; never leaves `alloop.labels`."""

    def __init__(
        self,
        failure: Failure,
        message: str = "",
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.details: Mapping[str, Detail] = details or {}


class Program(Protocol):
    """What makes labels of one kind: a plain function of plain values."""

    def __call__(self, frame: Frame, settings: Mapping[str, Any]) -> Result:
        """The result; raises `Refused` where there is none."""
        ...
