"""The outcome of a program for one frame: a result, or a refusal with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from alloop.core.frame import Frame
from alloop.core.records import Detail, Failure
from alloop.core.units import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The numbers that a program computed for a frame.

    energy in eV, forces (atoms, 3) in eV/Å (see `no_forces`), details to store with the
    label, and for a cell the stress (6,) in eV/Å³, in Voigt order and with ASE's sign.
    """

    energy: float
    forces: Floats
    details: Mapping[str, Detail] = field(default_factory=dict)
    stress: Floats | None = None


def no_forces(frame: Frame) -> Floats:
    """Return the forces of a result that has an energy alone: NaN, (atoms, 3)."""
    return np.full((len(frame), 3), np.nan)


class Refused(Exception):
    """A program's refusal to label a frame; it never leaves `alloop.labels`."""

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


class LabelFunction(Protocol):
    """A function that makes the labels of one kind of level."""

    def __call__(self, frame: Frame, settings: Mapping[str, Any]) -> Result:
        """Return the result for a frame; raise `Refused` if there is none."""
        ...
