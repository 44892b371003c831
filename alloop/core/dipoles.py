"""Dipole moments among the details of labels, e Å about the origin of coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alloop.core.units import Floats

_NAMES = ("dipole_x", "dipole_y", "dipole_z")


def dipole_details(dipole: Floats) -> dict[str, float]:
    """Return the details that hold a dipole moment (3,) in e Å."""
    return {name: float(x) for name, x in zip(_NAMES, dipole, strict=True)}


def stack_dipoles(details: Sequence[Mapping[str, Any]]) -> Floats | None:
    """Return the dipoles (frames, 3) in e Å of labels, NaN where one has none.

    Labels of older stores, of cells and of coupled cluster have none. None where no
    label has one.
    """
    rows = [[facts.get(name) for name in _NAMES] for facts in details]
    numbers = [[x if isinstance(x, float) else np.nan for x in row] for row in rows]
    dipoles: Floats = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return dipoles if np.isfinite(dipoles).all(axis=1).any() else None
