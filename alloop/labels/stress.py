"""The stress of a cell among a label's details."""

from collections.abc import Mapping

import numpy as np

from alloop.core.records import Detail
from alloop.core.units import Floats

_VOIGT = {"xx": 0, "yy": 4, "zz": 8, "yz": 5, "xz": 2, "xy": 1}


def stress_details(stress: Floats) -> dict[str, Detail]:
    """`stress_xx` to `stress_xy` in eV/Å³ of a stress (3, 3) or (6,) in Voigt's order.

    Stress is the derivative of the energy by the strain over the volume, as in ASE.
    """
    flat = np.asarray(stress, dtype=np.float64).ravel()
    rows = _VOIGT.values() if flat.size == 9 else range(6)
    return {
        f"stress_{name}": float(flat[row])
        for name, row in zip(_VOIGT, rows, strict=True)
    }


def stress_of(details: Mapping[str, Detail]) -> Floats | None:
    """The stress (6,) in eV/Å³, in Voigt's order, that details tell of, if they do."""
    values = [details.get(f"stress_{name}") for name in _VOIGT]
    if any(not isinstance(value, float) for value in values):
        return None
    return np.array(values, dtype=np.float64)
