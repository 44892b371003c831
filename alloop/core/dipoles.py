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
    """Return the dipoles (frames, 3) in e Å of labels, None where one has none.

    Labels of older stores, of cells and of coupled cluster have none.
    """
    rows = [[facts.get(name) for name in _NAMES] for facts in details]
    if not rows or any(not isinstance(x, float) for row in rows for x in row):
        return None
    return np.array(rows, dtype=np.float64)
