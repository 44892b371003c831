"""The stress of a cell in labels."""

from collections.abc import Mapping

import numpy as np

from alloop.core.records import Detail, Label
from alloop.core.units import Floats

_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
_ORDER = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def voigt(stress: Floats) -> Floats:
    """Return a stress (6,) in Voigt order from (3, 3), symmetrised, or from (6,)."""
    given = np.asarray(stress, dtype=np.float64)
    if given.shape != (3, 3):
        return given.reshape(6)
    return np.array([(given[a, b] + given[b, a]) / 2 for a, b in _ORDER])


def stress_from_details(label: Label) -> Floats | None:
    """Return the stress (6,) of a label in eV/Å³ and Voigt order, or None.

    Labels in older stores have it among their details.
    """
    return label.stress if label.stress is not None else _told(label.details)


def _told(details: Mapping[str, Detail]) -> Floats | None:
    values = [details.get(f"stress_{name}") for name in _VOIGT]
    if any(not isinstance(value, float) for value in values):
        return None
    return np.array(values, dtype=np.float64)
