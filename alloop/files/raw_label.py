"""A labelled structure as read from its file, before conversion of units."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alloop.core.units import Floats


@dataclass(frozen=True, slots=True)
class LabelKeys:
    """The names of energy and forces that the user gave; None means the usual names."""

    energy: str | None = None
    forces: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RawLabel:
    """A labelled structure in the file's units.

    numbers (atoms,), positions and forces (atoms, 3), energy; charge in e, spin is 2S;
    cell (3, 3) in rows.
    """

    numbers: Any
    positions: Any
    energy: float
    forces: Any
    charge: int = 0
    spin: int = 0
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: tuple[bool, bool, bool] = (False, False, False)
