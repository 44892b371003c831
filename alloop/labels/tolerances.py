"""Thresholds of the checks of labels, by class of level.

Beside each threshold stands the largest value measured on molecules of 1 to 12 atoms,
H to Au, charges -1 to 1 (`tests/labels/test_gate.py` measures some):

=================================== ============== ============ ============= =========
level                               net force eV/Å measured     torque eV     measured
=================================== ============== ============ ============= =========
HF, MP2, CCSD, CCSD(T), GFN-xTB     1e-4           6e-8         1e-3          1.2e-4
Kohn-Sham with grid response        1e-4           3e-7         0.1           5.8e-2
Kohn-Sham without grid response     0.02           1.2e-2       0.1           5.6e-2
any other program                   0.05                        0.5
=================================== ============== ============ ============= =========

Kohn-Sham forces have a torque because the grid does not rotate with the molecule:
5.8e-2 at grid 0, 3e-2 at grid 1, 1.5e-2 at grid 3 (M06-2X, the worst; 9e-3 with gold;
else 1e-3). Without grid response the net force is as large as the error of the forces,
0.1 to 1.6 eV/Å at grid 0, so refusing such labels is right. The torque is taken about
the centroid, so that it does not depend on where the molecule is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from alloop.core.settings import SHARE, setting


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The thresholds of the checks.

    Covalent radii: Cordero 2008, as in ASE. torque: about the centroid, molecules only.
    """

    closest: float = setting(
        0.5, "closest distance of two atoms, in sums of covalent radii", ge=0
    )
    net_force: float = setting(0.05, "largest sum of all forces, eV/Å", gt=0)
    torque: float = setting(0.5, "largest sum of all torques, eV", gt=0)
    force: float = setting(100.0, "largest component of a force, eV/Å", gt=0)
    slope: float = setting(
        0.0,
        "share of labels whose forces are compared with a neighbour's energy",
        **SHARE,
    )


EXACT = Tolerances(net_force=1e-4, torque=1e-3)  # of exact gradients
FOREIGN = Tolerances()  # of programs that alloop knows nothing about


def gate_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a level's setting `gate`, one sentence each."""
    thresholds = settings.get("gate", {})
    if not isinstance(thresholds, Mapping):
        return [f"expected `gate` to map names to numbers, got {thresholds!r}"]
    return [
        text
        for key, value in thresholds.items()
        if (text := _wrong_threshold(key, value))
    ]


def _wrong_threshold(key: str, value: object) -> str | None:
    names = [field.name for field in fields(Tolerances)]
    if key not in names:
        hint = get_close_matches(key, names, n=1) or names
        return f"a gate has no threshold {key!r}; try {', '.join(hint)}"
    top = 1.0 if key == "slope" else np.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected the gate's {key} to be a number, got {value!r}"
    if not 0 <= value <= top:
        return f"expected the gate's {key} to be 0 to {top:g}, got {value:g}"
    return None
